//! The web console in a real browser against a real cloud: signing in, the first instance, what is refused, hostile
//! text, a session that ends. The story itself is `web-ui/story/run.mjs`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::{Guest, LabOptions, cached, in_lab};

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
        let story = tokio::process::Command::new("node")
            .arg("story/run.mjs")
            .current_dir(&console)
            .env("CUMULO_URL", lab.control.url())
            .env("CUMULO_USERNAME", &credentials.username)
            .env("CUMULO_PASSWORD", &credentials.password)
            .env("CUMULO_IMAGE", image.as_str())
            .env("CUMULO_TRACES", &traces)
            .kill_on_drop(true)
            .output()
            .await
            .context("run node")?;
        let said = String::from_utf8_lossy(&story.stdout);
        let failures = String::from_utf8_lossy(&story.stderr);
        ensure!(story.status.success(), "the story ends with {}\n{said}\n{failures}", story.status);
        ensure!(said.contains("console: done"), "{said}");
        Ok(())
    })
    .await
}
