//! VMDK descriptors: names of files of the host, in every place where some reader looks for one.

use super::builder::vmdk::{DESCRIPTOR, DESCRIPTOR_BYTES, described, descriptor, field, own_extent, sparse};
use super::{Case, Format};

const OTHER_FILE: &str = "vmdk_other_file";
const EXTENTS: &str = "vmdk_extents_unsupported";
const TYPE: &str = "vmdk_type_unsupported";
const PARENT: &str = "vmdk_parent";
const DESCRIPTOR_INVALID: &str = "vmdk_descriptor_invalid";

/// A good image but for these lines of the extents.
fn extents(lines: &str) -> Vec<u8> {
    described(sparse(), &descriptor("monolithicSparse", lines)).bytes
}

/// A good image with these lines more.
fn more(lines: &str) -> Vec<u8> {
    extents(&format!("{}\n{lines}", own_extent()))
}

fn of_type(create_type: &str, target: &str) -> Vec<u8> {
    described(sparse(), &descriptor(create_type, &format!("RW 8 FLAT \"{target}\" 0"))).bytes
}

fn replaced(from: &str, to: &str) -> Vec<u8> {
    described(sparse(), &descriptor("monolithicSparse", &own_extent()).replace(from, to)).bytes
}

fn named(name: &str) -> Vec<u8> {
    extents(&own_extent().replace("disk.vmdk", name))
}

const fn refused(name: &'static str, code: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, Format::Vmdk, code, make)
}

pub(super) const CASES: &[Case] = &[
    refused("vmdk: a descriptor alone", "vmdk_descriptor_alone", |target| {
        descriptor("monolithicFlat", &format!("RW 8 FLAT \"{target}\" 0")).into_bytes()
    }),
    refused("vmdk: a descriptor alone, without its title", "vmdk_descriptor_alone", |target| {
        format!("version=1\ncreateType=\"vmfs\"\nRW 8 VMFS \"{target}\"\n").into_bytes()
    }),
    refused("vmdk: no capacity, so that its extents count", "vmdk_header_invalid", |target| {
        described(sparse(), &descriptor("monolithicFlat", &format!("RW 8 FLAT \"{target}\" 0")))
            .u64(field::CAPACITY, 0)
            .bytes
    }),
    refused("vmdk: monolithicFlat", TYPE, |target| of_type("monolithicFlat", target)),
    refused("vmdk: a physical disk", TYPE, |_| of_type("fullDevice", "/dev/vda")),
    refused("vmdk: many files", TYPE, |target| of_type("twoGbMaxExtentSparse", target)),
    refused("vmdk: vmfs", TYPE, |target| of_type("vmfs", target)),
    refused("vmdk: seSparse", TYPE, |target| of_type("seSparse", target)),
    refused("vmdk: an unknown type", TYPE, |target| of_type(target, target)),
    refused("vmdk: an extent of ESX", TYPE, |_| sparse().put(0, b"COWD").bytes),
    refused("vmdk: a flat extent of the host", EXTENTS, |target| {
        extents(&format!("RW 8 FLAT \"{target}\" 0"))
    }),
    refused("vmdk: a flat extent beside its own", EXTENTS, |target| {
        more(&format!("RW 8 FLAT \"{target}\" 0"))
    }),
    refused("vmdk: a vmfs extent of the host", EXTENTS, |target| extents(&format!("RW 8 VMFS \"{target}\""))),
    refused("vmdk: a device", EXTENTS, |_| extents("RW 8 VMFSRDM \"/dev/vda\"")),
    refused("vmdk: an extent of zeros", EXTENTS, |_| extents("RW 20480 ZERO")),
    refused("vmdk: its own extent twice", EXTENTS, |_| more(&own_extent())),
    refused("vmdk: no extent", EXTENTS, |_| extents("")),
    refused("vmdk: a sparse extent of the host", OTHER_FILE, named),
    refused("vmdk: an extent in the folder above", OTHER_FILE, |_| named("../disk.vmdk")),
    refused("vmdk: an extent called ..", OTHER_FILE, |_| named("..")),
    refused("vmdk: an extent in JSON", OTHER_FILE, |_| named("json:{}")),
    refused("vmdk: an extent on the network", OTHER_FILE, |_| named("nbd:127.0.0.1:10809")),
    refused("vmdk: an extent on another drive", OTHER_FILE, |_| named("C:\\disk.vmdk")),
    refused("vmdk: an extent behind a quote", OTHER_FILE, |target| {
        named(&format!("disk.vmdk\" \"{}", target.replace('/', "")))
    }),
    refused("vmdk: an extent of another size", DESCRIPTOR_INVALID, |_| extents("RW 8 SPARSE \"disk.vmdk\"")),
    refused("vmdk: an extent of 2^70 sectors", DESCRIPTOR_INVALID, |_| {
        extents("RW 1180591620717411303424 SPARSE \"disk.vmdk\"")
    }),
    refused("vmdk: an extent of -1 sectors", DESCRIPTOR_INVALID, |_| extents("RW -1 SPARSE \"disk.vmdk\"")),
    refused("vmdk: an extent with an offset", DESCRIPTOR_INVALID, |_| {
        extents(&format!("{} 8", own_extent()))
    }),
    refused("vmdk: an extent behind a carriage return", DESCRIPTOR_INVALID, |target| {
        more(&format!("# note\rRW 8 FLAT \"{target}\" 0"))
    }),
    refused("vmdk: an extent behind an escape", DESCRIPTOR_INVALID, |target| {
        more(&format!("\u{1b}[2KRW 8 FLAT \"{target}\" 0"))
    }),
    refused("vmdk: a parent's name", PARENT, |target| more(&format!("parentFileNameHint=\"{target}\""))),
    refused("vmdk: a parent's name in a comment", PARENT, |target| {
        more(&format!("# parentFileNameHint=\"{target}\""))
    }),
    refused("vmdk: a parent's name in another case", PARENT, |target| {
        more(&format!("PARENTFILENAMEHINT=\"{target}\""))
    }),
    refused("vmdk: a parent's identity", PARENT, |_| replaced("parentCID=ffffffff", "parentCID=12a44aeb")),
    refused("vmdk: a parent's name behind the end", DESCRIPTOR_INVALID, |target| {
        sparse().put(DESCRIPTOR + 4096, format!("parentFileNameHint=\"{target}\"").as_bytes()).bytes
    }),
    refused("vmdk: a list of changed blocks", OTHER_FILE, |target| {
        more(&format!("changeTrackPath=\"{target}\""))
    }),
    refused("vmdk: two types", DESCRIPTOR_INVALID, |_| more("createType=\"monolithicSparse\"")),
    refused("vmdk: two identities", DESCRIPTOR_INVALID, |_| more("CID=12a44aea")),
    refused("vmdk: an unknown setting", DESCRIPTOR_INVALID, |target| {
        more(&format!("file.filename={target}"))
    }),
    refused("vmdk: words", DESCRIPTOR_INVALID, |_| more("include this")),
    refused("vmdk: version 4 of the descriptor", DESCRIPTOR_INVALID, |_| replaced("version=1", "version=4")),
    refused("vmdk: no version", DESCRIPTOR_INVALID, |_| replaced("version=1", "")),
    refused("vmdk: no type", DESCRIPTOR_INVALID, |_| replaced("createType=\"monolithicSparse\"", "")),
    refused("vmdk: a snapshot", DESCRIPTOR_INVALID, |_| more("isNativeSnapshot=\"yes\"")),
    refused("vmdk: a descriptor without an end", DESCRIPTOR_INVALID, |_| {
        sparse().put(DESCRIPTOR, &[b'#'; DESCRIPTOR_BYTES as usize]).bytes
    }),
];
