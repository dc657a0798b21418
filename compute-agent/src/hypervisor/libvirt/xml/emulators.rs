//! What an emulator can do, as libvirt's domain capabilities tell (<https://libvirt.org/formatdomaincaps.html>).

use camino::Utf8PathBuf;
use quick_xml::DeError;
use quick_xml::de::from_str;
use serde::Deserialize;

/// The emulator that libvirt starts.
pub(in super::super) fn emulator(capabilities: &str) -> Result<Utf8PathBuf, DeError> {
    #[derive(Deserialize)]
    struct Capabilities {
        path: Utf8PathBuf,
    }
    Ok(from_str::<Capabilities>(capabilities)?.path)
}

/// Whether UEFI is installed for its guests.
pub(in super::super) fn boots_with_uefi(capabilities: &str) -> Result<bool, DeError> {
    #[derive(Deserialize)]
    struct Capabilities {
        os: Option<Os>,
    }
    #[derive(Deserialize)]
    struct Os {
        #[serde(rename = "enum", default)]
        enums: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        #[serde(rename = "@name")]
        name: String,
        #[serde(default)]
        value: Vec<String>,
    }
    let enums = from_str::<Capabilities>(capabilities)?.os.map(|os| os.enums).unwrap_or_default();
    let firmware = enums.into_iter().find(|choice| choice.name == "firmware");
    Ok(firmware.is_some_and(|choice| choice.value.iter().any(|value| value == "efi")))
}
