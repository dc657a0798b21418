//! Terraform with hundreds of instances at once, on simulated hosts.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use lab::{Fleet, LabOptions, binaries, in_lab};
use serde_json::json;

use crate::terraform::Folder;

const MANY: &str = include_str!("terraform/many.tf");
const INSTANCES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn two_hundred_instances_are_made_kept_and_removed_in_one_run_each() -> Result<()> {
    binaries::terraform()?;
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let mut fleet = Fleet::start(&lab.control, &lab.cloud, 20, &[]).await?;
        lab.cloud.instance_type("small", 1, 256, 1).await?;
        let credentials = lab.control.credentials()?;
        let environment = [
            ("CUMULO_URL", lab.control.url()),
            ("CUMULO_USERNAME", credentials.username),
            ("CUMULO_PASSWORD", credentials.password),
        ];
        let home = tempfile::tempdir()?;
        let folder = Folder::new(home.path(), "many", &environment)?;
        folder.install()?;
        fs::write(folder.path.join("many.tf"), MANY)?;
        fs::File::create(folder.path.join("disk.raw"))?.set_len(1 << 20)?;
        folder.says(&["init"], "successfully initialized")?;

        let begun = Instant::now();
        let apply = ["apply", "-auto-approve", "-parallelism=20"];
        folder.says(&apply, "Resources: 205 added, 0 changed, 0 destroyed.")?;
        eprintln!("applied in {:.0?}", begun.elapsed());
        let begun = Instant::now();
        folder.says(&["plan", "-detailed-exitcode"], "No changes.")?;
        eprintln!("planned in {:.0?}", begun.elapsed());

        let begun = Instant::now();
        folder.says(
            &["destroy", "-auto-approve", "-parallelism=20"],
            "Destroy complete! Resources: 205 destroyed.",
        )?;
        eprintln!("destroyed in {:.0?}", begun.elapsed());
        let left = lab.cloud.get("/v1/projects").await?.success()?;
        ensure!(left["items"] == json!([]), "{left}");
        let report = fleet.end().await?;
        ensure!(report["guests"] == 0 && report["starts"] == INSTANCES, "{report}");
        ensure!(report["started_twice"] == json!([]), "{report}");
        Ok(())
    })
    .await
}
