//! The web console in a real browser against a real cloud: signing in, the first instance, what is refused, hostile
//! text, an API that dies, a session that ends. The story itself is `web-ui/story/run.mjs`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ControlPlane, Guest, LabOptions, cached, in_lab};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

const CHROMIUM: &str = "/usr/bin/chromium";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_time_in_a_browser() -> Result<()> {
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web-ui");
    ensure!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is missing: deploy/packages console");
    ensure!(
        console.join("built/index.html").exists() && console.join("node_modules").exists(),
        "the console is not built: deploy/console, and then build cumulo-api again"
    );
    let traces = console.join("../target/console-traces");
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let credentials = lab.control.credentials()?;
        let image = tokio::task::spawn_blocking(|| cached(Guest::Fast)).await??;
        let mut story = tokio::process::Command::new("node")
            .arg("story/run.mjs")
            .current_dir(&console)
            .env("CUMULO_URL", lab.control.url())
            .env("CUMULO_USERNAME", &credentials.username)
            .env("CUMULO_PASSWORD", &credentials.password)
            .env("CUMULO_IMAGE", image.as_str())
            .env("CUMULO_TRACES", &traces)
            .env("CUMULO_HANDS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run node")?;
        let mut errors = story.stderr.take().context("node has no standard error")?;
        let mut failures = String::new();
        let (said, _) = tokio::try_join!(follow(&mut story, &mut lab.control), async {
            Ok(errors.read_to_string(&mut failures).await?)
        })?;
        let status = story.wait().await.context("wait for node")?;
        ensure!(status.success(), "the story ends with {status}\n{said}\n{failures}");
        ensure!(said.contains("console: done"), "{said}");
        Ok(())
    })
    .await
}

/// Does to the API what the story asks for, and tells it when that is done. All that the story said.
async fn follow(story: &mut Child, control: &mut ControlPlane) -> Result<String> {
    let mut lines = BufReader::new(story.stdout.take().context("node has no standard output")?).lines();
    let mut hands = story.stdin.take().context("node has no standard input")?;
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        said.push_str(&line);
        said.push('\n');
        match line.as_str() {
            "please: kill the API" => control.api.kill().await?,
            "please: start the API" => {
                control.api.start().await?;
                control.wait_ready(Duration::from_secs(60)).await?;
            }
            _ => continue,
        }
        hands.write_all(b"done\n").await.context("tell the story")?;
    }
    Ok(said)
}
