//! Whether an image and an instance type go together.

use sqlx::PgConnection;

use crate::http::FieldError;
use crate::images::{ImageRow, no_bios};
use crate::instance_types::{self, InstanceTypeRow};
use crate::instances::SizedType;
use crate::volumes::gib_for;

/// What an image asks of an instance type.
#[derive(Debug)]
struct Needs<'a> {
    architecture: &'a str,
    root_disk_gib: i32,
    memory_mib: i32,
}

/// What stands in the way of an instance of this type from this image, with a root disk of that size if one is asked
/// for, and which types would do.
pub(crate) async fn misfits(
    conn: &mut PgConnection,
    image: &ImageRow,
    sized: &SizedType,
    root_disk_gib: Option<i32>,
) -> Result<Vec<FieldError>, sqlx::Error> {
    let Some(virtual_size_bytes) = image.virtual_size_bytes else {
        return Ok(vec![FieldError::new(
            "/image",
            "not_ready",
            "nothing has been uploaded to this image yet",
        )]);
    };
    if let Some(fault) = no_bios(&image.architecture, &image.firmware) {
        let message = format!("{}; its owner can change `firmware`", fault.message);
        return Ok(vec![FieldError::new("/image", fault.code, message)]);
    }
    let needs = Needs {
        architecture: &image.architecture,
        root_disk_gib: gib_for(virtual_size_bytes).max(image.min_disk_gib),
        memory_mib: image.min_memory_mib,
    };
    let least = sized.instance_type.root_disk_gib;
    if let Some(size) = root_disk_gib
        && size < needs.root_disk_gib.max(least)
    {
        let needed = needs.root_disk_gib;
        let message = format!("the image needs {needed} GiB, and this type has at least {least} GiB");
        return Ok(vec![FieldError::new("/root_disk_gib", "too_small", message)]);
    }
    let faults = needs.faults(sized, root_disk_gib);
    if faults.is_empty() {
        return Ok(Vec::new());
    }
    let fitting =
        instance_types::fitting(conn, needs.architecture, needs.root_disk_gib.into(), needs.memory_mib)
            .await?;
    let advice = needs.advice(&fitting);
    let error = |(pointer, code, fault)| FieldError::new(pointer, code, format!("{fault}; {advice}"));
    Ok(faults.into_iter().map(error).collect())
}

impl Needs<'_> {
    /// Pointer, code and message of each.
    fn faults(&self, sized: &SizedType, asked_gib: Option<i32>) -> Vec<(&'static str, &'static str, String)> {
        const TYPE: &str = "/instance_type";
        let mut faults = Vec::new();
        let InstanceTypeRow { architecture, root_disk_gib, memory_mib, .. } = &sized.instance_type;
        if self.architecture != architecture {
            let fault = format!("the image is for {}, the type for {architecture}", self.architecture);
            faults.push((TYPE, "architecture", fault));
        }
        if self.root_disk_gib > asked_gib.unwrap_or(*root_disk_gib) {
            let needed = self.root_disk_gib;
            let fault = format!(
                "the image needs a root disk of {needed} GiB, this type has {root_disk_gib} GiB (`root_disk_gib` asks for more)"
            );
            faults.push((TYPE, "disk_too_small", fault));
        }
        if self.memory_mib > *memory_mib {
            let needed = self.memory_mib;
            let what = if sized.is_custom { "size" } else { "type" };
            let fault = format!("the image needs {needed} MiB of memory, this {what} has {memory_mib} MiB");
            faults.push((sized.memory_pointer(), "memory_too_small", fault));
        }
        faults
    }

    fn advice(&self, fitting: &[String]) -> String {
        if fitting.is_empty() {
            let Self { architecture, root_disk_gib, memory_mib } = self;
            let memory =
                if *memory_mib > 0 { format!(" and {memory_mib} MiB of memory") } else { String::new() };
            return format!(
                "no type fits: ask an operator for one for {architecture} with {root_disk_gib} GiB of root disk{memory} \
                 or more"
            );
        }
        format!("what fits: {}", fitting.join(", "))
    }
}
