//! Whose the files of disks are: whom libvirt would give them to, and what it leaves alone.

use protocol::VolumeId;
use quick_xml::DeError;
use quick_xml::de::from_str;
use serde::Deserialize;

use super::disks::ALIAS;

/// The user and the group that QEMU runs as, as the capabilities of the host tell
/// (<https://libvirt.org/formatcaps.html>); `None` if libvirt gives files to nobody.
pub(in super::super) fn qemu_user(capabilities: &str) -> Result<Option<(u32, u32)>, DeError> {
    #[derive(Deserialize)]
    struct Capabilities {
        host: Host,
    }
    #[derive(Deserialize)]
    struct Host {
        #[serde(rename = "secmodel", default)]
        models: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        model: String,
        #[serde(rename = "baselabel", default)]
        labels: Vec<BaseLabel>,
    }
    #[derive(Deserialize)]
    struct BaseLabel {
        #[serde(rename = "$text", default)]
        text: String,
    }
    let models = from_str::<Capabilities>(capabilities)?.host.models;
    // The same for each kind of domain.
    let label = models.iter().find(|model| model.model == "dac").and_then(|dac| dac.labels.first());
    Ok(label.and_then(|label| {
        let (user, group) = label.text.trim().split_once(':')?;
        // A plus says that it is a number.
        let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
        Some((number(user)?, number(group)?))
    }))
}

/// Whether the volumes of the running domain with this XML, but for those that are its host's alone, stay whose they are when
/// it ends. An earlier release has left that to libvirt.
pub(in super::super) fn leaves_owners(domain: &str, but_for: &[VolumeId]) -> Result<bool, DeError> {
    #[derive(Deserialize)]
    struct Domain {
        devices: Option<Devices>,
    }
    #[derive(Deserialize)]
    struct Devices {
        #[serde(default)]
        disk: Vec<Disk>,
    }
    let disks = from_str::<Domain>(domain)?.devices.map(|devices| devices.disk).unwrap_or_default();
    let mut looked_at =
        disks.iter().filter(|disk| disk.is_volume() && !but_for.iter().any(|one| disk.is_of(*one)));
    Ok(looked_at.all(|disk| is_untouched(disk.source.as_ref(), &disk.backing_store)))
}

#[derive(Deserialize)]
struct Disk {
    source: Option<Source>,
    #[serde(rename = "backingStore")]
    backing_store: Option<Box<Below>>,
    alias: Option<Alias>,
}

#[derive(Deserialize)]
struct Below {
    source: Option<Source>,
    #[serde(rename = "backingStore")]
    backing_store: Option<Box<Below>>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "seclabel", default)]
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    #[serde(rename = "@model")]
    model: Option<String>,
    #[serde(rename = "@relabel")]
    relabel: Option<String>,
}

#[derive(Deserialize)]
struct Alias {
    #[serde(rename = "@name")]
    name: String,
}

impl Disk {
    /// The seed is none, and this host's alone.
    fn is_volume(&self) -> bool {
        self.alias.as_ref().is_some_and(|alias| alias.name.starts_with(ALIAS))
    }

    fn is_of(&self, volume: VolumeId) -> bool {
        self.alias.as_ref().is_some_and(|alias| alias.name == format!("{ALIAS}{volume}"))
    }
}

fn is_untouched(source: Option<&Source>, below: &Option<Box<Below>>) -> bool {
    let by_dac =
        |label: &Label| label.model.as_deref() == Some("dac") && label.relabel.as_deref() == Some("no");
    source.is_none_or(|source| source.labels.iter().any(by_dac))
        && below.as_ref().is_none_or(|below| is_untouched(below.source.as_ref(), &below.backing_store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_qemu_is_read_from_the_capabilities() {
        let with = |models: &str| format!("<capabilities><host><cpu/>{models}</host><guest/></capabilities>");
        let dac = "<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+108</baselabel>\
            <baselabel type='qemu'>+64055:+108</baselabel></secmodel>";
        let apparmor = "<secmodel><model>apparmor</model><doi>0</doi></secmodel>";
        let both = format!("{apparmor}{dac}");
        for (models, user) in [
            (dac, Some((64055, 108))),
            (both.as_str(), Some((64055, 108))),
            (apparmor, None),
            ("", None),
            ("<secmodel><model>dac</model><doi>0</doi></secmodel>", None),
            ("<secmodel><model>dac</model><baselabel>+1:+-2</baselabel></secmodel>", None),
            ("<secmodel><model>dac</model><baselabel>a:b</baselabel></secmodel>", None),
        ] {
            assert_eq!(qemu_user(&with(models)).unwrap(), user, "{models}");
        }
        qemu_user("<capabilities><host>").unwrap_err();
    }

    #[test]
    fn a_domain_of_an_earlier_release_would_give_its_files_back() {
        let label = "<seclabel model='dac' relabel='no'/>";
        let domain = |top: &str, below: &str| {
            format!(
                "<domain><devices><disk type='file'><source file='/a' index='1'>{top}</source>\
                 <backingStore type='file' index='2'><format type='qcow2'/><source file='/b'>{below}</source>\
                 <backingStore/></backingStore><target dev='vda'/><alias name='ua-1'/></disk>\
                 <disk><source file='/seed'/><alias name='virtio-disk1'/></disk></devices></domain>"
            )
        };
        assert!(leaves_owners(&domain(label, label), &[]).unwrap());
        let other = format!("<seclabel model='apparmor' relabel='no'/>{label}");
        assert!(leaves_owners(&domain(&other, label), &[]).unwrap());
        for (top, below) in [
            ("", label),
            (label, ""),
            ("<seclabel model='apparmor' relabel='no'/>", label),
            (label, "<seclabel model='dac' relabel='yes'/>"),
        ] {
            assert!(!leaves_owners(&domain(top, below), &[]).unwrap(), "{top} {below}");
        }
        let local = VolumeId::from_uuid(uuid::Uuid::now_v7());
        let of_its_host = domain("", "").replace("ua-1", &format!("ua-{local}"));
        assert!(!leaves_owners(&of_its_host, &[]).unwrap());
        assert!(leaves_owners(&of_its_host, &[local]).unwrap(), "nobody else has its files");
        leaves_owners("<domain><devices>", &[]).unwrap_err();
    }
}
