//! Seeds, read back by mtools.

use std::os::unix::fs::PermissionsExt;

use protocol::agent::Seed;

use super::*;

fn seed(user_data: Option<&str>, keys: &[&str]) -> Seed {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Seed::new(user_data.map(|text| text.as_bytes().to_vec()), keys)
}

/// A file on the seed of an instance.
fn file(fixture: &Fixture, id: InstanceId, name: &str) -> String {
    tool("mtype", &["-i", fixture.pool.paths(id).seed.as_str(), &format!("::{name}")])
}

#[tokio::test]
async fn a_seed_holds_what_cloud_init_looks_for() {
    let fixture = Fixture::new();
    let (id, hostname) = (instance(1), "web-1".parse().unwrap());
    let script = "#!/bin/sh\necho hello\n";
    let contents = seed(Some(script), &["ssh-ed25519 AAAA a@b", "ssh-rsa BBBB"]);
    assert_eq!(fixture.pool.ensure_seed(id, &hostname, &contents).await.unwrap(), Made::Now);
    let image = fixture.pool.paths(id).seed;
    let listing = tool("mdir", &["-i", image.as_str(), "::"]);
    assert!(listing.contains("cidata"), "{listing}");
    assert!(listing.contains("2 files"), "{listing}");
    assert_eq!(file(&fixture, id, "user-data"), script);
    let meta_data: serde_json::Value = serde_json::from_str(&file(&fixture, id, "meta-data")).unwrap();
    let expected = serde_json::json!({
        "instance-id": id.to_string(),
        "local-hostname": "web-1",
        "public-keys": ["ssh-ed25519 AAAA a@b", "ssh-rsa BBBB"],
    });
    assert_eq!(meta_data, expected);
    assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o777, 0o600);
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_seed_is_replaced_when_its_contents_differ_and_only_then() {
    let fixture = Fixture::new();
    let (id, hostname) = (instance(1), "web-1".parse().unwrap());
    fixture.pool.ensure_seed(id, &hostname, &seed(None, &[])).await.unwrap();
    assert_eq!(file(&fixture, id, "user-data"), "#cloud-config\n{}\n");
    let again = fixture.pool.ensure_seed(id, &hostname, &seed(None, &[])).await.unwrap();
    assert_eq!(again, Made::Before);
    let other = fixture.pool.ensure_seed(id, &hostname, &seed(Some("#!/bin/sh\n"), &[])).await.unwrap();
    assert_eq!(other, Made::Now);
    assert_eq!(file(&fixture, id, "user-data"), "#!/bin/sh\n");
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn hostile_contents_stay_contents() {
    let fixture = Fixture::new();
    let (id, hostname) = (instance(1), "web-1".parse().unwrap());
    let large = "\u{1f4a3}\0\r\n: - {} \"'".repeat(4000);
    let keys = ["\"\nlocal-hostname: evil\nx: \"", "a\0b", "\u{85}\u{2028}\u{feff}\u{7f}"];
    for user_data in ["", "\0", large.as_str()] {
        fixture.pool.ensure_seed(id, &hostname, &seed(Some(user_data), &keys)).await.unwrap();
        assert_eq!(file(&fixture, id, "user-data"), user_data);
        let meta_data: serde_json::Value = serde_json::from_str(&file(&fixture, id, "meta-data")).unwrap();
        assert_eq!(meta_data["local-hostname"], "web-1");
        assert_eq!(meta_data["public-keys"], serde_json::json!(keys));
    }
    // The file system itself is sound.
    let image = fixture.pool.paths(id).seed;
    tool("minfo", &["-i", image.as_str(), "::"]);
}
