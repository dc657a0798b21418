//! Uploads of every format, and of what only looks like one.

use protocol::image::Format;
use protocol::image::corpus::{Fate, cases, honest};
use serde_json::json;

use super::{IMAGES, announce, cloud, content, swept};

#[tokio::test]
async fn every_format_is_announced_uploaded_and_shown() {
    let cloud = cloud().await;
    let images = honest();
    for format in Format::ALL {
        assert!(images.iter().any(|(_, of, _)| *of == format), "an honest image of {format:?}");
    }
    for (number, (what, format, bytes)) in images.into_iter().enumerate() {
        let name = format!("image-{number}");
        announce(&cloud, &name, format.as_str()).await;
        let length = bytes.len();
        let virtual_size = if format == Format::Raw { length } else { 10 << 20 };
        let image = cloud.put_bytes(&content(&name), bytes).await.expect(200);
        assert_eq!(image["format"], format.as_str(), "{what}");
        assert_eq!(image["state"], "available", "{what}");
        let sizes = (&image["size_bytes"], &image["virtual_size_bytes"]);
        assert_eq!(sizes, (&json!(length), &json!(virtual_size)), "{what}");
        assert_eq!(cloud.get(&format!("{IMAGES}/{name}")).await.expect(200)["format"], format.as_str());
    }
}

#[tokio::test]
async fn a_refusal_names_what_was_wrong_and_leaves_nothing() {
    let cloud = cloud().await;
    let chosen = [
        "vmdk: a descriptor alone",
        "vmdk: a sparse extent of the host",
        "vmdk: a parent's name",
        "vmdk: cut in its data",
        "vhdx: the checksum of the first header",
        "vhdx: a parent locator that names a file",
        "vhdx: a log that waits",
        "vdi: a parent",
        "vdi: a block twice",
        "raw: a VMDK descriptor",
        "vdi: a VHDX",
    ];
    for (number, name) in chosen.into_iter().enumerate() {
        let case = cases().find(|case| case.name == name).unwrap();
        let Fate::Refused(code) = case.fate else { panic!("{name} is not refused") };
        let image = format!("image-{number}");
        announce(&cloud, &image, case.format.as_str()).await;
        let uploaded = cloud.put_bytes(&content(&image), case.bytes("/etc/hostname")).await;
        let problem = uploaded.expect_problem(422, "image_refused");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{code}: ")), "{name}: {detail}");
        assert!(!detail.contains("/etc/hostname"), "{name}: {detail}");
        let shown = cloud.get(&format!("{IMAGES}/{image}")).await.expect(200);
        assert_eq!(shown["state"], "awaiting_upload", "{name}");
    }
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn other_formats_are_not_announced() {
    let cloud = cloud().await;
    for format in ["vpc", "vhd", "qcow", "qed", "dmg", "QCOW2", ""] {
        let answer = cloud.post(IMAGES, json!({"name": "image", "format": format})).await;
        answer.expect_problem(422, "validation_failed");
    }
}
