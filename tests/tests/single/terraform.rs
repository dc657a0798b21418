//! The Terraform provider under the real Terraform, with every resource that needs no host. Those that need one are in
//! the guide, which `guides.rs` runs.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lab::{Cloud, LabOptions, binaries, in_lab};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("terraform/everything.tf");
const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_made_kept_imported_and_removed() -> Result<()> {
    binaries::terraform()?;
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let credentials = lab.control.credentials()?;
        let environment = [
            ("CUMULO_URL", lab.control.url()),
            ("CUMULO_USERNAME", credentials.username),
            ("CUMULO_PASSWORD", credentials.password),
        ];
        let home = tempfile::tempdir()?;
        let made = Folder::new(home.path(), "made", &environment)?;
        let installed = made.install()?;
        fs::write(made.path.join("everything.tf"), EVERYTHING)?;
        fs::File::create(made.path.join("disk.raw"))?.set_len(1 << 20)?;
        made.says(&["init"], "successfully initialized")?;

        // Interrupted, what was begun is kept; killed, what was made and not written down is taken over.
        let is_there = async |path: &str| Ok(lab.cloud.get(path).await?.status == 200);
        let network = "/v1/projects/shop/networks/front";
        made.cut_off(Signal::SIGINT, async || is_there(network).await).await?;
        made.cut_off(Signal::SIGKILL, async || is_there("/v1/projects/shop/subnets/front").await).await?;
        made.take_over(&lab.cloud).await?;
        made.says(&["plan", "-detailed-exitcode"], "No changes.")?;
        let state = fs::read_to_string(made.path.join("terraform.tfstate"))?;
        ensure!(!state.contains(PASSWORD), "the state has a password in it");

        // A change, and a replacement.
        let changed = ["-var=tier=other", "-var=policy=affinity"];
        made.says(&[&["apply", "-auto-approve"][..], &changed].concat(), "1 added, 1 changed, 1 destroyed")?;
        made.says(&[&["plan", "-detailed-exitcode"][..], &changed].concat(), "No changes.")?;
        made.says(&["apply", "-auto-approve"], "Apply complete!")?;

        // What others have done shows, and is undone.
        lab.cloud.patch(network, json!({"description": "drifted"})).await?.success()?;
        let drifted = made.run(&["plan", "-detailed-exitcode"])?;
        ensure!(drifted.status.code() == Some(2) && text(&drifted).contains("drifted"), "{}", text(&drifted));
        made.says(&["apply", "-auto-approve"], "1 changed")?;

        // The plan says what the quota would.
        let refused = made.run(&["plan", "-var=more_networks=2"])?;
        ensure!(text(&refused).contains("networks: 2 of 2 used"), "{}", text(&refused));

        // Something is there that the state has forgotten.
        made.says(&["state", "rm", "cumulo_placement_group.apart"], "removed")?;
        let forgotten = made.run(&["apply", "-auto-approve"])?;
        ensure!(text(&forgotten).contains("terraform import"), "{}", text(&forgotten));
        made.says(&["import", "cumulo_placement_group.apart", "shop/apart"], "Import successful!")?;
        made.says(&["plan", "-detailed-exitcode"], "No changes.")?;

        // All of it, in a configuration that Terraform writes.
        let imported = Folder::new(home.path(), "imported", &environment)?;
        fs::write(imported.path.join("versions.tf"), installed)?;
        let shown: Value = serde_json::from_slice(&made.run(&["show", "-json"])?.stdout)?;
        fs::write(imported.path.join("imports.tf"), imports(&shown)?)?;
        imported.says(&["init"], "successfully initialized")?;
        imported.says(&["plan", "-generate-config-out=made.tf"], "0 to add, 0 to change, 0 to destroy.")?;

        let schemas: Value = serde_json::from_slice(&made.run(&["providers", "schema", "-json"])?.stdout)?;
        let schema =
            &schemas["provider_schemas"]["cumulo.dev/cumulo/cumulo"]["resource_schemas"]["cumulo_user"];
        ensure!(schema["block"]["attributes"]["password"]["write_only"] == true, "{schema}");

        made.says(&["destroy", "-auto-approve"], "Destroy complete!")?;
        for path in ["/v1/projects", "/v1/groups", "/v1/users?name=ada"] {
            let left = lab.cloud.get(path).await?.success()?;
            ensure!(left["items"] == json!([]), "{path} has {left}");
        }
        Ok(())
    })
    .await
}

/// A folder of Terraform's, with a home of its own.
pub(crate) struct Folder<'a> {
    pub(crate) path: std::path::PathBuf,
    home: &'a Path,
    environment: &'a [(&'a str, String)],
}

impl<'a> Folder<'a> {
    pub(crate) fn new(home: &'a Path, name: &str, environment: &'a [(&'a str, String)]) -> Result<Self> {
        let path = home.join(name);
        fs::create_dir(&path)?;
        Ok(Self { path, home, environment })
    }

    /// Signs in and installs the provider; gives the block that names it.
    pub(crate) fn install(&self) -> Result<String> {
        let (cumulo, provider) = (binaries::find("cumulo")?, binaries::find("terraform-provider-cumulo")?);
        let login = self.command(cumulo.as_str()).arg("login").output()?;
        ensure!(login.status.success(), "{}", text(&login));
        let install = ["terraform", "install", "--program", provider.as_str()];
        let installed = self.command(cumulo.as_str()).args(install).output()?;
        ensure!(installed.status.success(), "{}", text(&installed));
        let block = String::from_utf8(installed.stdout)?;
        fs::write(self.path.join("versions.tf"), &block)?;
        Ok(block)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path).envs(self.environment.iter().map(|(name, value)| (name, value)));
        for name in ["HOME", "XDG_DATA_HOME", "CUMULO_CONFIG_DIR"] {
            command.env(name, self.home);
        }
        // As for somebody who has configured nothing.
        command.env("TF_CLI_CONFIG_FILE", "/dev/null").env("CHECKPOINT_DISABLE", "1");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Result<Output> {
        let (verb, rest) = words.split_first().context("a command")?;
        let colour = (!matches!(*verb, "state" | "show" | "providers")).then_some("-no-color");
        self.command("terraform").arg(verb).args(colour).args(rest).output().context("run terraform")
    }

    /// In a process group of its own, as a shell would start it.
    fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = self.command("terraform");
        let command = command.args(words).process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("run terraform")
    }

    /// Begins an apply, and ends it as soon as something is so; it must not be done by then.
    async fn cut_off(&self, signal: Signal, mut when: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let mut apply = self.start(&["apply", "-auto-approve"])?;
        while !when().await? && apply.try_wait()?.is_none() {}
        killpg(Pid::from_raw(i32::try_from(apply.id())?), signal).ok();
        ensure!(!apply.wait()?.success(), "the apply was done before it could be cut off");
        Ok(())
    }

    /// Applies, and imports what is there already, as the errors say.
    async fn take_over(&self, cloud: &Cloud) -> Result<()> {
        for _ in 0..5 {
            let applied = self.run(&["apply", "-auto-approve"])?;
            if applied.status.success() {
                return Ok(());
            }
            let said = text(&applied);
            let taken = said.split("Error: ").skip(1).filter(|error| error.contains("terraform import"));
            let addresses: Vec<_> =
                taken.filter_map(|error| Some(error.split_once("with ")?.1.split_once(',')?.0)).collect();
            ensure!(!addresses.is_empty(), "{said}");
            for address in addresses {
                let id = import_id(cloud, address).await?;
                self.says(&["import", address, &id], "Import successful!")?;
            }
        }
        bail!("what was cut off is not taken over")
    }

    pub(crate) fn says(&self, words: &[&str], expected: &str) -> Result<()> {
        let output = self.run(words)?;
        let said = text(&output);
        ensure!(output.status.success(), "terraform {words:?} ended with {}:\n{said}", output.status);
        ensure!(said.contains(expected), "terraform {words:?} does not say '{expected}':\n{said}");
        Ok(())
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Each label in the configuration is the resource's name. What has no name is looked up.
async fn import_id(cloud: &Cloud, address: &str) -> Result<String> {
    let (kind, name) = address.split_once('.').context("an address")?;
    let found = async |path: &str, field: &str, is_it: &dyn Fn(&Value) -> bool| -> Result<String> {
        let answer = cloud.get(path).await?.success()?;
        let one = answer[field].as_array().into_iter().flatten().find(|one| is_it(one));
        let id = one.and_then(|one| one["id"].as_str());
        id.map(str::to_owned).with_context(|| format!("nothing for {address} in {answer}"))
    };
    Ok(match kind {
        "cumulo_project" | "cumulo_user" | "cumulo_group" | "cumulo_cloud_policy" => name.to_owned(),
        "cumulo_cloud_policy_attachment" => {
            found("/v1/policy_attachments", "items", &|one| one["policy"]["name"] == "read-all").await?
        }
        "cumulo_policy_attachment" => {
            let path = "/v1/projects/shop/policy_attachments";
            format!("shop/{}", found(path, "items", &|one| one["policy"]["name"] == "read").await?)
        }
        "cumulo_security_group_rule" => {
            let is_it = |rule: &Value| name == format!("web[\"{}\"]", rule["port_first"]);
            let path = "/v1/projects/shop/security_groups/web";
            format!("shop/web/{}", found(path, "rules", &is_it).await?)
        }
        _ => format!("shop/{name}"),
    })
}

/// An `import` block for each resource of a state.
fn imports(shown: &Value) -> Result<String> {
    let resources = shown["values"]["root_module"]["resources"].as_array().context("a state")?;
    let mut blocks = String::new();
    for (number, one) in resources.iter().filter(|one| one["mode"] == "managed").enumerate() {
        let kind = one["type"].as_str().context("a type")?;
        let parts: &[&str] = match kind {
            "cumulo_quota" => &["project"],
            "cumulo_group_member" => &["group", "user"],
            "cumulo_image_share" => &["project", "image", "other"],
            "cumulo_router_interface" => &["project", "router", "subnet"],
            "cumulo_service_account_key" => &["project", "service_account", "id"],
            "cumulo_security_group_rule" => &["project", "security_group", "id"],
            "cumulo_project" | "cumulo_user" | "cumulo_group" => &["id"],
            _ if kind.starts_with("cumulo_cloud_policy") => &["id"],
            _ => &["project", "id"],
        };
        let id: Vec<_> = parts.iter().filter_map(|part| one["values"][part].as_str()).collect();
        blocks += &format!("import {{\n  to = {kind}.r{number}\n  id = \"{}\"\n}}\n", id.join("/"));
    }
    Ok(blocks)
}
