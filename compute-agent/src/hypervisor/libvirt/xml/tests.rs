use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;
use protocol::agent::{
    Acceleration, Architecture, BootOrder, CpuModel, CpuTopology, DiskBus, GuestHardware, IoLimits, Nic,
    NicModel,
};
use protocol::{LayerId, MacAddress, MemoryMib, NetworkId, PortId, SizeGib, Vni, VolumeId};
use quick_xml::XmlVersion;
use quick_xml::events::Event;

use super::disks::Found;
use super::render::RenderError;
use super::*;
use crate::hypervisor::{Card, DomainDisk, DomainSpec, NewLayer, SeenVolume};

fn disk(n: u128) -> DomainDisk {
    DomainDisk {
        volume: VolumeId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0100 + n)),
        size_gib: SizeGib(1),
        limits: IoLimits::default(),
        shared: false,
        base: Some("/pool/bases/2.qcow2".into()),
        layers: vec![layer(n)],
    }
}

fn layer(n: u128) -> Utf8PathBuf {
    format!("/pool/layers/{}.qcow2", Uuid::from_u128(n)).into()
}

/// As it is read back.
fn seen(disk: &DomainDisk) -> Option<SeenVolume> {
    let layers = disk.layers.iter().map(|path| path.file_stem().unwrap().parse().unwrap()).collect();
    Some(SeenVolume { id: disk.volume, layers })
}

fn spec() -> DomainSpec {
    DomainSpec {
        id: InstanceId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
        generation: Generation(7),
        boot: 3,
        hostname: "web-1".parse().unwrap(),
        architecture: Architecture::X86_64,
        uefi_variables: None,
        hardware: GuestHardware::default(),
        vcpus: 2,
        memory_mib: MemoryMib(512),
        disks: vec![disk(1)],
        nics: Vec::new(),
        seed: "/pool/seeds/1.img".into(),
        serial_log: "/pool/logs/1.log".into(),
        request_id: Some(RequestId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002))),
    }
}

/// The file is a schema's subject and easier to read with a line per element.
fn indented(xml: &str) -> String {
    xml.replace("><", ">\n<")
}

fn valid(xml: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, xml).unwrap();
    let output = Command::new("virt-xml-validate").arg(file.path()).arg("domain").output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The metadata element as it stands in a document.
fn metadata_of(xml: &str) -> &str {
    xml.split_once("<metadata>").unwrap().1.split_once("</metadata>").unwrap().0
}

/// The files of all disks, as an XML reader sees them.
fn sources(xml: &str) -> Vec<Utf8PathBuf> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut files = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return files,
            Event::Empty(element) | Event::Start(element) if element.name().as_ref() == "source" => {
                let file = element.try_get_attribute("file").unwrap().unwrap();
                files.push(file.normalized_value(XmlVersion::Explicit1_0).unwrap().into_owned().into());
            }
            _ => {}
        }
    }
}

#[test]
fn renders_an_emulated_domain() {
    let xml = domain(&spec(), Acceleration::Tcg).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
}

#[test]
fn renders_a_domain_on_hardware() {
    let xml = domain(&DomainSpec { request_id: None, ..spec() }, Acceleration::Kvm).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
}

#[test]
fn renders_a_domain_with_uefi() {
    let uefi_variables = Some("/pool/instances/1/uefi_variables.fd".into());
    let xml = domain(&DomainSpec { uefi_variables, ..spec() }, Acceleration::Kvm).unwrap();
    let os = xml.split_once("<os ").unwrap().1.split_once("</os>").unwrap().0;
    assert_eq!(
        os,
        "firmware=\"efi\"><type arch=\"x86_64\" machine=\"q35\">hvm</type><firmware><feature enabled=\"no\" \
         name=\"secure-boot\"/></firmware><nvram>/pool/instances/1/uefi_variables.fd</nvram>"
    );
    valid(&xml).unwrap();
    let uefi_variables = Some("relative.fd".into());
    let error = domain(&DomainSpec { uefi_variables, ..spec() }, Acceleration::Kvm).unwrap_err();
    assert!(matches!(error, RenderError::Path(_)));
}

#[test]
fn only_models_that_the_host_can_give_are_told() {
    let capabilities = "<domainCapabilities><path>/usr/bin/qemu</path><cpu>
        <mode name='host-passthrough' supported='yes'/>
        <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model></mode>
        <mode name='custom' supported='yes'>
          <model usable='yes' vendor='AMD' canonical='EPYC-v1'>EPYC</model>
          <model usable='no' vendor='Intel'>Icelake-Server</model>
          <blockers model='Icelake-Server'><feature name='hle'/></blockers>
          <model usable='unknown'>qemu64</model><model usable='yes'>a b</model><model usable='yes'>Opteron_G3</model>
        </mode></cpu></domainCapabilities>";
    assert_eq!(usable_models(capabilities).unwrap(), ["EPYC", "Opteron_G3"]);
    assert_eq!(usable_models("<domainCapabilities/>").unwrap(), Vec::<String>::new());
}

fn cpu_of(hardware: GuestHardware, acceleration: Acceleration) -> String {
    let xml = domain(&DomainSpec { hardware, ..spec() }, acceleration).unwrap();
    valid(&xml).unwrap();
    let (_, cpu) = xml.split_once("<cpu ").unwrap();
    cpu.split_once("<clock").unwrap().0.to_owned()
}

#[test]
fn the_processor_is_as_the_type_says() {
    let topology = Some(CpuTopology { sockets: 1, cores: 1, threads: 2 });
    let usual = GuestHardware { topology, ..GuestHardware::default() };
    assert_eq!(
        cpu_of(usual.clone(), Acceleration::Kvm),
        "mode=\"host-passthrough\" check=\"none\" migratable=\"on\"><topology sockets=\"1\" cores=\"1\" \
         threads=\"2\"/></cpu>"
    );
    assert_eq!(
        cpu_of(usual, Acceleration::Tcg),
        "mode=\"maximum\" check=\"none\" migratable=\"on\"><topology sockets=\"1\" cores=\"1\" threads=\"2\"/></cpu>"
    );
    let of_model = |cpu_model| GuestHardware { cpu_model, ..GuestHardware::default() };
    assert_eq!(
        cpu_of(of_model(CpuModel::HostModel), Acceleration::Kvm),
        "mode=\"host-model\" check=\"partial\"/>"
    );
    assert_eq!(
        cpu_of(of_model(CpuModel::Named("EPYC".to_owned())), Acceleration::Tcg),
        "mode=\"custom\" check=\"partial\" match=\"exact\"><model fallback=\"forbid\">EPYC</model></cpu>"
    );
}

#[test]
fn old_systems_get_disks_and_cards_that_they_know() {
    let hardware = GuestHardware {
        disk_bus: DiskBus::Sata,
        nic_model: NicModel::E1000e,
        boot_order: BootOrder::NetworkThenDisk,
        ..GuestHardware::default()
    };
    let disks = vec![disk(1), disk(2)];
    let old = DomainSpec { hardware, disks: disks.clone(), nics: vec![nic(1), nic(2)], ..spec() };
    let xml = domain(&old, Acceleration::Tcg).unwrap();
    valid(&xml).unwrap();
    for (index, element) in [
        "<target dev=\"sda\" bus=\"sata\"/><boot order=\"2\"/>",
        "<target dev=\"sdb\" bus=\"usb\"/><readonly/>",
        "<target dev=\"sdc\" bus=\"sata\"/><serial>",
        "<model type=\"e1000e\"/><mtu size=\"1450\"/><rom enabled=\"yes\"/><boot order=\"1\"/>",
        "<model type=\"e1000e\"/><mtu size=\"1450\"/><rom enabled=\"no\"/></interface>",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(xml.contains(element), "{index}: {element}\n{xml}");
    }
    let read_back: Vec<_> = found(&xml).unwrap().into_iter().filter_map(|found| found.volume).collect();
    assert_eq!(read_back, disks.iter().map(|disk| seen(disk).unwrap()).collect::<Vec<_>>());
    let scsi = GuestHardware { disk_bus: DiskBus::VirtioScsi, ..GuestHardware::default() };
    let xml = domain(&DomainSpec { hardware: scsi, ..old }, Acceleration::Tcg).unwrap();
    valid(&xml).unwrap();
    let scsi = [
        "<controller type=\"scsi\" index=\"0\" model=\"virtio-scsi\"/>",
        "<target dev=\"sdc\" bus=\"scsi\"/>",
    ];
    assert!(scsi.iter().all(|element| xml.contains(element)), "{xml}");
}

fn nic(n: u8) -> Nic {
    Nic {
        port_id: PortId::from_uuid(Uuid::from_u128(
            0x0190_0000_0000_7000_8000_0000_0000_0010 + u128::from(n),
        )),
        network_id: NetworkId::from_uuid(Uuid::from_u128(1)),
        vni: Vni::try_from(4321).unwrap(),
        mac: MacAddress::from_bytes([0x02, 0, 0, 0, 0, n]).unwrap(),
        mtu: 1450,
        addresses: Vec::new(),
    }
}

#[test]
fn renders_a_domain_with_cards_and_reads_them_back() {
    let nics = vec![nic(1), nic(2)];
    let xml = domain(&DomainSpec { nics: nics.clone(), ..spec() }, Acceleration::Kvm).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
    assert_eq!(cards(&xml).unwrap(), [Card::of(&nics[0]), Card::of(&nics[1])]);
    assert!(xml.contains(&card(&nics[1]).unwrap()), "plugged in as it would be started");
}

#[test]
fn reads_no_card_where_there_is_none_of_ours() {
    let strange = "<domain><devices><interface type='user'/><disk/><interface type='x'>\
        <mac address='01:00:00:00:00:00'/></interface></devices></domain>";
    assert_eq!(cards(strange).unwrap(), []);
    assert_eq!(cards(&domain(&spec(), Acceleration::Tcg).unwrap()).unwrap(), []);
}

#[test]
fn renders_a_domain_with_volumes_and_reads_them_back() {
    let limits = IoLimits { iops: Some(500), bytes_per_second: Some(10 << 20) };
    let layers = vec![layer(2), layer(3)];
    let empty = DomainDisk { base: None, shared: true, ..disk(4) };
    let disks = vec![disk(1), DomainDisk { layers, limits, ..disk(2) }, empty.clone()];
    let xml = domain(&DomainSpec { disks: disks.clone(), ..spec() }, Acceleration::Kvm).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
    let place = |target: &str, file: &Utf8Path, volume| Found {
        target: target.to_owned(),
        file: Some(file.to_owned()),
        volume,
    };
    let of = |target, disk: &DomainDisk| place(target, disk.layers.last().unwrap(), seen(disk));
    let expected =
        [of("vda", &disks[0]), place("vdb", &spec().seed, None), of("vdc", &disks[1]), of("vdd", &disks[2])];
    assert_eq!(found(&xml).unwrap(), expected);
    // Plugged in as it would be started, at the first free place.
    let others = [expected[0].clone(), expected[1].clone(), expected[2].clone()];
    assert!(xml.contains(&disk_for(&others, &empty).unwrap()));
    assert!(
        disk_for(&[], &empty).unwrap().contains("vdc"),
        "the first places are those of root disk and seed"
    );
}

/// What other hosts reach stays whose it is, however it comes to the domain; what is this host's alone is libvirt's to give.
#[test]
fn every_file_of_a_chain_in_a_shared_pool_is_left_alone() {
    let chain = DomainDisk { shared: true, layers: vec![layer(2), layer(3), layer(4)], ..disk(2) };
    let rendered = |disk: &DomainDisk| {
        domain(&DomainSpec { disks: vec![disk.clone()], ..spec() }, Acceleration::Kvm).unwrap()
    };
    let label = "><seclabel model=\"dac\" relabel=\"no\"/></source>";
    for xml in [rendered(&chain), disk_for(&[], &chain).unwrap(), super::disks::files(&chain).unwrap()] {
        for file in &chain.layers {
            assert!(xml.contains(&format!("<source file=\"{file}\"{label}")), "{file} in {xml}");
        }
    }
    valid(&rendered(&chain)).unwrap();
    assert!(leaves_owners(&rendered(&chain), &[]).unwrap());
    assert!(!leaves_owners(&rendered(&DomainDisk { shared: false, ..chain.clone() }), &[]).unwrap());
    let running = found(&rendered(&chain)).unwrap();
    for shared in [true, false] {
        let new = NewLayer { volume: chain.volume, shared, layer: layer(5) };
        let xml = snapshot(&running, &[new], None).unwrap();
        assert_eq!(xml.contains(&format!("<source file=\"{}\"{label}", layer(5))), shared, "{xml}");
    }
}

#[test]
fn reads_the_root_disk_of_a_domain_from_before_volumes() {
    let id = Uuid::from_u128(5);
    let xml = format!(
        "<domain><devices><disk type='file'><source file='/pool/instances/{id}/root.qcow2' index='2'><x/></source>\
         <backingStore type='file'><source file='/a/instances/{}/root.qcow2'/></backingStore>\
         <mirror type='file'><source file='/a/{id}.qcow2'/></mirror>\
         <target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>\
         <disk><source file='/pool/instances/{id}/seed.img'/><target dev='vdb'/></disk></devices></domain>",
        Uuid::from_u128(6)
    );
    let place = |target: &str, file: &str, volume| Found {
        target: target.to_owned(),
        file: Some(format!("/pool/instances/{id}/{file}").into()),
        volume,
    };
    let (volume, layer) = (VolumeId::from_uuid(id), LayerId::from_uuid(id));
    let root = SeenVolume { id: volume, layers: vec![LayerId::from_uuid(Uuid::from_u128(6)), layer] };
    assert_eq!(
        found(&xml).unwrap(),
        [place("vda", "root.qcow2", Some(root)), place("vdb", "seed.img", None)]
    );
}

#[test]
fn a_volume_without_layers_is_refused() {
    let bad = DomainDisk { layers: Vec::new(), ..disk(1) };
    let error = domain(&DomainSpec { disks: vec![bad.clone()], ..spec() }, Acceleration::Tcg).unwrap_err();
    assert!(matches!(error, RenderError::NoLayer(volume) if volume == bad.volume));
}

#[test]
fn the_validator_does_refuse() {
    let xml = domain(&spec(), Acceleration::Tcg).unwrap();
    valid(&xml.replace("<acpi/>", "<ac-pi/>")).unwrap_err();
}

/// A guest of another processor than the host's.
fn foreign(architecture: Architecture) -> DomainSpec {
    let uefi_variables = Some("/pool/instances/1/uefi_variables.fd".into());
    DomainSpec { architecture, uefi_variables, nics: vec![nic(1)], ..spec() }
}

#[test]
fn renders_an_aarch64_domain() {
    let xml = domain(&foreign(Architecture::Aarch64), Acceleration::Tcg).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
}

#[test]
fn renders_a_riscv64_domain() {
    let xml = domain(&foreign(Architecture::Riscv64), Acceleration::Tcg).unwrap();
    insta::assert_snapshot!(indented(&xml));
    valid(&xml).unwrap();
}

#[test]
fn other_architectures_are_emulated_on_any_host_and_have_no_bios() {
    for architecture in [Architecture::Aarch64, Architecture::Riscv64] {
        let of = foreign(architecture);
        assert_eq!(domain(&of, Acceleration::Kvm).unwrap(), domain(&of, Acceleration::Tcg).unwrap());
        let error = domain(&DomainSpec { uefi_variables: None, ..of }, Acceleration::Tcg).unwrap_err();
        assert!(matches!(error, RenderError::NoBios(refused) if refused == architecture));
    }
}

#[test]
fn an_emulator_says_whether_it_boots_with_uefi() {
    let capabilities =
        |os: &str| format!("<domainCapabilities><path>/usr/bin/qemu</path>{os}<cpu/></domainCapabilities>");
    let installed = capabilities(
        "<os supported='yes'><enum name='firmware'><value>bios</value><value>efi</value></enum>\
         <loader supported='yes'><enum name='type'><value>rom</value></enum></loader></os>",
    );
    assert_eq!(emulator(&installed).unwrap(), "/usr/bin/qemu");
    assert!(boots_with_uefi(&installed).unwrap());
    for without in ["<os supported='yes'><enum name='firmware'/><loader/></os>", "<os supported='no'/>", ""] {
        assert!(!boots_with_uefi(&capabilities(without)).unwrap(), "{without}");
    }
}

#[test]
fn markup_in_a_path_stays_text() {
    let overlay = Utf8PathBuf::from(r#"/pool/'/><source file="/etc/shadow"/>&amp;.qcow2"#);
    let mut spec = spec();
    spec.disks[0].layers = vec![overlay.clone()];
    let xml = domain(&spec, Acceleration::Tcg).unwrap();
    valid(&xml).unwrap();
    assert_eq!(sources(&xml)[0], overlay);
    assert_eq!(sources(&xml).len(), 3);
}

#[test]
fn a_path_that_xml_would_change_is_refused() {
    for bad in
        ["", "relative", "./x", "/a\nb", "/a\tb", "/a\rb", "/a\0b", "/a\u{1b}[2J", "/a\u{ffff}", "/a\u{85}b"]
    {
        let mut spec = spec();
        spec.serial_log = bad.into();
        let error = domain(&spec, Acceleration::Tcg).unwrap_err();
        assert!(matches!(&error, RenderError::Path(path) if path == bad), "{bad:?}: {error}");
    }
}

#[test]
fn foreign_metadata_is_refused() {
    for bad in ["", "<instance/>", "<instance generation='x' boot='1'/>", "<instance generation='1'/>", "<a"]
    {
        Metadata::parse(bad).unwrap_err();
    }
}

#[test]
fn only_our_names_are_ours() {
    let uuid = Uuid::from_u128(1);
    assert_eq!(instance_of(&format!("cumulo-{uuid}"), uuid), Some(InstanceId::from_uuid(uuid)));
    for (name, uuid) in [(format!("cumulo-{uuid}"), Uuid::from_u128(2)), (uuid.to_string(), uuid)] {
        assert_eq!(instance_of(&name, uuid), None, "{name}");
    }
}

#[test]
fn finds_the_emulator_in_the_capabilities() {
    let xml = "<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path><domain>qemu</domain></domainCapabilities>";
    assert_eq!(emulator(xml).unwrap(), "/usr/bin/qemu-system-x86_64");
}

proptest! {
    #[test]
    fn metadata_survives(generation: i64, boot: i64, request_id: Option<u128>) {
        let request_id = request_id.map(|id| RequestId::from_uuid(Uuid::from_u128(id)));
        let generation = Generation(generation);
        let spec = DomainSpec { generation, boot, request_id, ..spec() };
        let xml = domain(&spec, Acceleration::Tcg).unwrap();
        let read = Metadata::parse(metadata_of(&xml)).unwrap();
        prop_assert_eq!(read, Metadata { generation, boot, request_id });
    }

    #[test]
    fn whatever_a_path_holds_is_carried_or_refused(name in any::<String>()) {
        let mut spec = spec();
        spec.seed = format!("/pool/{name}").into();
        if let Ok(xml) = domain(&spec, Acceleration::Tcg) {
            let disk = spec.disks.remove(0);
            let files: Vec<_> = disk.layers.into_iter().chain(disk.base).chain([spec.seed]).collect();
            prop_assert_eq!(sources(&xml), files);
        }
    }
}

#[test]
fn what_was_saved_gets_its_present_files_and_nothing_else() {
    let before = DomainSpec { disks: vec![disk(1), DomainDisk { base: None, ..disk(2) }], ..spec() };
    let saved = domain(&before, Acceleration::Tcg).unwrap();
    let mut after = DomainSpec { generation: Generation(9), boot: 4, request_id: None, ..before };
    after.disks[0].layers = vec![layer(1), layer(11)];
    after.disks[1].layers = vec![layer(2), layer(12), layer(22)];
    // As we write it, and as libvirt does.
    for saved in [saved.clone(), indented(&saved)] {
        let xml = resumed(&saved, &after).unwrap();
        valid(&xml).unwrap();
        let volumes: Vec<_> = found(&xml).unwrap().into_iter().map(|found| found.volume).collect();
        assert_eq!(volumes, [seen(&after.disks[0]), None, seen(&after.disks[1])]);
        let metadata = Metadata::parse(metadata_of(&xml)).unwrap();
        assert_eq!((metadata.generation, metadata.boot), (Generation(9), 4));
        let flat = |xml: &str| xml.replace(">\n<", "><");
        let devices = |xml: &str| flat(xml).split_once("<controller ").unwrap().1.to_owned();
        assert_eq!(devices(&xml), devices(&saved));
    }
    after.disks.pop();
    assert!(matches!(resumed(&saved, &after), Err(RenderError::OtherDisks)));
    assert!(resumed("<domain><devices><disk>", &after).is_err());
}
