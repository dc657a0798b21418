//! The files of a NoCloud seed, as cloud-init's documentation of that data source describes them.

use std::fmt::Write as _;
use std::io;

use protocol::agent::Seed;
use protocol::{InstanceId, Name};
use serde::Serialize;

/// A file's name and contents.
pub(super) type SeedFile = (&'static str, Vec<u8>);

/// `meta-data`, which is YAML to cloud-init. JSON is YAML, and nothing in it can break out of its string.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: InstanceId,
    local_hostname: &'a Name,
    /// For the image's default user.
    public_keys: &'a [String],
}

pub(super) fn files(id: InstanceId, hostname: &Name, seed: &Seed) -> io::Result<[SeedFile; 2]> {
    let meta_data =
        MetaData { instance_id: id, local_hostname: hostname, public_keys: &seed.ssh_authorized_keys };
    let meta_data = serde_json::to_string_pretty(&meta_data)?;
    let user_data = seed.user_data_bytes().unwrap_or_else(|| b"#cloud-config\n{}\n".to_vec());
    Ok([("meta-data", yaml_safe(&meta_data).into_bytes()), ("user-data", user_data)])
}

/// Escapes the characters that JSON allows in a string and YAML's readers refuse (DEL, C1 controls, byte
/// order marks and the like), by escaping all beyond ASCII that has a `\u` form in both.
fn yaml_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        match u32::from(character) {
            code @ 0x7f..=0xffff => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{code:04x}");
            }
            _ => safe.push(character),
        }
    }
    safe.push('\n');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta_data(keys: Vec<String>) -> Vec<u8> {
        let id = InstanceId::from_uuid(uuid::Uuid::nil());
        let seed = Seed::new(None, keys);
        let [(name, bytes), _] = files(id, &"web-1".parse().unwrap(), &seed).unwrap();
        assert_eq!(name, "meta-data");
        bytes
    }

    #[test]
    fn meta_data_reads_well() {
        let expected = r#"{
  "instance-id": "00000000-0000-0000-0000-000000000000",
  "local-hostname": "web-1",
  "public-keys": [
    "ssh-ed25519 AAAA me"
  ]
}
"#;
        assert_eq!(String::from_utf8(meta_data(vec!["ssh-ed25519 AAAA me".to_owned()])).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn no_key_changes_the_shape_or_leaves_what_yaml_reads(keys in prop::collection::vec(any::<String>(), 0..4)) {
            let bytes = meta_data(keys.clone());
            let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(parsed.as_object().unwrap().len(), 3);
            prop_assert_eq!(&parsed["public-keys"], &serde_json::json!(keys));
            // The printable characters of YAML 1.1, section 5.1, as far as they are used here.
            let text = String::from_utf8(bytes).unwrap();
            let readable = |c| matches!(c, '\n' | ' '..='~' | '\u{10000}'..);
            prop_assert!(text.chars().all(readable));
        }
    }
}
