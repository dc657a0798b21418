//! Consoles of a real guest, as a user has them: one boot, and everything that is said of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use lab::{Guest, Host, Instance, LabOptions, eventually, in_lab};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::scene::LIMIT;

/// What an answer of the guest or of a host may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(40);

/// An open console: what has arrived and was not read yet.
struct Console {
    socket: WebSocketStream<TcpStream>,
    heard: Vec<u8>,
}

impl Console {
    async fn ask(instance: &Instance, kind: &str) -> Result<Value> {
        instance.project.cloud.post(&instance.path("/consoles"), json!({"kind": kind})).await?.success()
    }

    /// Opens it; or the status of the refusal.
    async fn open(asked: &Value) -> Result<Result<Self, u16>> {
        let url = asked["url"].as_str().context("no url")?;
        let protocols: Vec<_> =
            asked["subprotocols"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", protocols.join(", ").parse()?);
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split_once('/')).context("not ws://")?.0;
        let stream = TcpStream::connect(address).await?;
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Ok(Self { socket, heard: Vec::new() })),
            Err(Error::Http(answer)) => Ok(Err(answer.status().as_u16())),
            Err(error) => Err(error.into()),
        }
    }

    async fn opened(instance: &Instance, kind: &str) -> Result<Self> {
        Self::open(&Self::ask(instance, kind).await?)
            .await?
            .map_err(|status| anyhow::anyhow!("it is {status}"))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.send(Message::Binary(bytes.to_vec().into())).await?)
    }

    /// Waits for more. An error when it was closed.
    async fn listen(&mut self) -> Result<()> {
        match tokio::time::timeout(ANSWER, self.socket.next()).await.context("nothing is said")? {
            Some(Ok(Message::Binary(bytes))) => self.heard.extend_from_slice(&bytes),
            Some(Ok(Message::Close(frame))) => bail!("closed: {frame:?}"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!("closed"),
        }
        Ok(())
    }

    async fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.heard.len() < count {
            self.listen().await?;
        }
        Ok(self.heard.drain(..count).collect())
    }

    /// Reads until this was said.
    async fn until(&mut self, text: &str) -> Result<()> {
        let began = Instant::now();
        while !String::from_utf8_lossy(&self.heard).contains(text) {
            ensure!(began.elapsed() < ANSWER, "not {text:?}: {:?}", String::from_utf8_lossy(&self.heard));
            self.listen().await?;
        }
        self.heard.clear();
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        self.socket.close(None).await?;
        while let Some(Ok(_)) = tokio::time::timeout(ANSWER, self.socket.next()).await? {}
        Ok(())
    }
}

/// Types a command into the guest's shell until the answer comes, which no echo of the question looks like.
async fn talk(console: &mut Console, number: u32) -> Result<()> {
    let answer = format!("answer-{}", number + 1);
    let began = Instant::now();
    loop {
        // The first line only wakes the shell.
        console.send(format!("\necho answer-$(({number} + 1))\n").as_bytes()).await?;
        let told = tokio::time::timeout(Duration::from_secs(5), console.until(&answer)).await;
        match told {
            Ok(said) => return said,
            Err(_) if began.elapsed() < ANSWER => {}
            Err(_) => bail!("no answer: {:?}", String::from_utf8_lossy(&console.heard)),
        }
    }
}

/// RFC 6143: version, security, the size of the screen, and one update of all of it. The pixels.
async fn look(console: &mut Console) -> Result<(u16, u16, Vec<u8>)> {
    ensure!(console.take(12).await? == b"RFB 003.008\n", "not RFB 3.8");
    console.send(b"RFB 003.008\n").await?;
    let count = console.take(1).await?[0].into();
    ensure!(console.take(count).await?.contains(&1), "no security type None");
    console.send(&[1]).await?;
    ensure!(console.take(4).await? == [0; 4], "refused");
    // ClientInit: shared.
    console.send(&[1]).await?;
    let init = console.take(24).await?;
    let number = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (width, height) = (number(&init, 0), number(&init, 2));
    let bytes_per_pixel = usize::from(init[4] / 8);
    let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize;
    console.take(name).await?;
    // SetEncodings: Raw. FramebufferUpdateRequest: all of it.
    console.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await?;
    let [w, h] = [width.to_be_bytes(), height.to_be_bytes()];
    console.send(&[3, 0, 0, 0, 0, 0, w[0], w[1], h[0], h[1]]).await?;
    let update = console.take(4).await?;
    ensure!(update[0] == 0, "not an update: {update:?}");
    let mut pixels = Vec::new();
    for _ in 0..number(&update, 2) {
        let rectangle = console.take(12).await?;
        ensure!(rectangle[8..] == [0; 4], "not raw");
        let area = usize::from(number(&rectangle, 4)) * usize::from(number(&rectangle, 6));
        pixels.extend(console.take(area * bytes_per_pixel).await?);
    }
    Ok((width, height, pixels))
}

/// As the head of the file says (RFC 2083).
fn size_of_png(picture: &[u8]) -> Result<(u32, u32)> {
    ensure!(
        picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.ends_with(b"IEND\xae\x42\x60\x82"),
        "no PNG"
    );
    let number = |at: usize| {
        Ok::<_, anyhow::Error>(u32::from_be_bytes(picture.get(at..at + 4).context("short")?.try_into()?))
    };
    Ok((number(16)?, number(20)?))
}

/// Those who look at the display, as QEMU counts them.
fn viewers(host: &Host, instance: &Instance) -> Result<usize> {
    let (domain, ask) = (format!("cumulo-{}", instance.id), r#"{"execute":"query-vnc-servers"}"#);
    let answer: Value = serde_json::from_str(&host.virsh.run(&["qemu-monitor-command", &domain, ask])?)?;
    Ok(answer["return"][0]["clients"].as_array().map_or(0, Vec::len))
}

async fn until_viewers(host: &Host, instance: &Instance, count: usize) -> Result<()> {
    eventually(format!("{count} viewers"), ANSWER, async || {
        let found = viewers(host, instance)?;
        ensure!(found == count, "there are {found}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_seen_and_typed_into() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let body = json!({"name": "web", "image": "fast", "instance_type": "fast", "networks": []});
        let instance = project.create(body).await?;
        instance.wait_for_state("running", LIMIT).await?;
        instance.wait_for_serial("cumulo-test: ready", LIMIT).await?;

        // The serial port: a command and its answer, beside the log.
        let ticket = Console::ask(&instance, "serial").await?;
        let mut serial = Console::open(&ticket).await?.map_err(|status| anyhow::anyhow!("it is {status}"))?;
        talk(&mut serial, 41).await?;
        instance.wait_for_serial("answer-42", ANSWER).await?;
        ensure!(Console::open(&ticket).await?.err() == Some(401), "a ticket opened twice");
        let second = Console::ask(&instance, "serial").await?;
        ensure!(Console::open(&second).await?.err() == Some(409), "two readers of one port");
        // Closing ends the stream on the host: another one gets in.
        serial.close().await?;
        let mut serial =
            eventually("the port to be free", ANSWER, async || Console::opened(&instance, "serial").await)
                .await?;
        talk(&mut serial, 60).await?;

        // The display, with somebody else looking on.
        let host = lab.host_of(&instance)?;
        let (mut one, mut two) =
            (Console::opened(&instance, "vnc").await?, Console::opened(&instance, "vnc").await?);
        for display in [&mut one, &mut two] {
            let (width, height, pixels) = look(display).await?;
            ensure!(width >= 320 && height >= 200, "{width}x{height}");
            ensure!(pixels.iter().any(|byte| *byte != pixels[0]), "a screen with nothing on it");
        }
        until_viewers(host, &instance, 2).await?;
        let picture = project.cloud.get_bytes(&instance.path("/screenshot")).await?;
        let (width, height) = size_of_png(&picture)?;
        ensure!(width >= 320 && height >= 200, "{width}x{height}");
        one.close().await?;
        // The other one just goes.
        drop(two);
        until_viewers(host, &instance, 0).await?;

        // When the guest goes, its consoles do.
        let mut display = Console::opened(&instance, "vnc").await?;
        instance.action("stop", json!({"force": true})).await?;
        for console in [&mut serial, &mut display] {
            while console.listen().await.is_ok() {}
        }
        instance.wait_for_state("stopped", LIMIT).await?;
        let refused =
            instance.project.cloud.post(&instance.path("/consoles"), json!({"kind": "vnc"})).await?;
        refused.problem(409, "wrong_state")?;
        instance.delete().await?.expect(202)?;
        instance.wait_gone(LIMIT).await?;
        lab.wait_empty(LIMIT).await
    })
    .await
}
