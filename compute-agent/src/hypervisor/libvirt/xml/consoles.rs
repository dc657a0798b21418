//! What a running domain has for people to look at.

use camino::Utf8PathBuf;
use serde::Deserialize;

/// The consoles of a running domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Consoles {
    pub(in super::super) has_display: bool,
    /// The terminal of the first serial port, on the host.
    pub(in super::super) serial: Option<Utf8PathBuf>,
}

/// The consoles in the XML of a running domain.
pub(in super::super) fn consoles(domain: &str) -> Result<Consoles, quick_xml::DeError> {
    #[derive(Deserialize)]
    struct Domain {
        devices: Devices,
    }
    #[derive(Deserialize)]
    struct Devices {
        #[serde(default)]
        graphics: Vec<Graphics>,
        #[serde(default)]
        serial: Vec<Serial>,
    }
    #[derive(Deserialize)]
    struct Graphics {
        #[serde(rename = "@type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Serial {
        #[serde(rename = "@type")]
        kind: String,
        source: Option<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        #[serde(rename = "@path")]
        path: Option<Utf8PathBuf>,
    }
    let devices = quick_xml::de::from_str::<Domain>(domain)?.devices;
    let first = devices.serial.into_iter().next().filter(|serial| serial.kind == "pty");
    Ok(Consoles {
        has_display: devices.graphics.iter().any(|graphics| graphics.kind == "vnc"),
        serial: first.and_then(|serial| serial.source?.path),
    })
}
