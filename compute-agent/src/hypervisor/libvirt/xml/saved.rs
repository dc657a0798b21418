//! The description that a saved memory carries, made that of the domain which goes on from it.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};

use super::disks::{ALIAS, files};
use super::render::{RenderError, metadata};
use crate::hypervisor::{DomainDisk, DomainSpec};

type Events = Vec<Event<'static>>;

/// The saved description with the present files of its disks and our present metadata. Everything else is as it was.
///
/// # Errors
/// [`RenderError::OtherDisks`] when it has a volume that the specification has not.
pub(in super::super) fn resumed(saved: &str, spec: &DomainSpec) -> Result<String, RenderError> {
    let mut reader = Reader::from_str(saved);
    let mut writer = Writer::new(Vec::new());
    loop {
        match reader.read_event()? {
            Event::Eof => break,
            Event::Start(start) if start.name().as_ref() == "disk" => {
                let children = children(&mut reader)?;
                let end = start.to_end().into_owned();
                writer.write_event(Event::Start(start))?;
                write_disk(&mut writer, children, spec)?;
                writer.write_event(Event::End(end))?;
            }
            Event::Start(start) if start.name().as_ref() == "metadata" => {
                children(&mut reader)?;
                write_text(&mut writer, &metadata(spec)?)?;
            }
            event => writer.write_event(event)?,
        }
    }
    String::from_utf8(writer.into_inner()).map_err(|_| RenderError::Saved)
}

/// What is in the element that has just begun, up to its end, which is passed over.
fn children(reader: &mut Reader<&[u8]>) -> Result<Vec<Events>, RenderError> {
    let (mut children, mut child, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    loop {
        let event = reader.read_event()?.into_owned();
        match &event {
            Event::Eof => return Err(RenderError::Saved),
            Event::Start(_) => depth += 1,
            Event::End(_) if depth == 0 => return Ok(children),
            Event::End(_) => depth -= 1,
            _ => {}
        }
        child.push(event);
        if depth == 0 {
            children.push(std::mem::take(&mut child));
        }
    }
}

fn write_disk(
    writer: &mut Writer<Vec<u8>>,
    children: Vec<Events>,
    spec: &DomainSpec,
) -> Result<(), RenderError> {
    let present = volume_of(&children, spec)?;
    if let Some(disk) = present {
        write_text(writer, &files(disk)?)?;
    }
    let is_replaced = |child: &Events| present.is_some() && name_is(child, &["source", "backingStore"]);
    for event in children.into_iter().filter(|child| !is_replaced(child)).flatten() {
        writer.write_event(event)?;
    }
    Ok(())
}

/// The volume in a disk; nothing for the seed.
fn volume_of<'a>(children: &[Events], spec: &'a DomainSpec) -> Result<Option<&'a DomainDisk>, RenderError> {
    let alias = children.iter().find(|child| name_is(child, &["alias"])).and_then(|child| start(child));
    let name = match alias {
        Some(alias) => alias.try_get_attribute("name").map_err(quick_xml::Error::from)?,
        None => None,
    };
    let name = name.map(|name| String::from(&*name.value));
    let Some(id) = name.as_deref().and_then(|name| name.strip_prefix(ALIAS)) else { return Ok(None) };
    let disk = spec.disks.iter().find(|disk| disk.volume.to_string() == id);
    disk.map(Some).ok_or(RenderError::OtherDisks)
}

fn start(child: &Events) -> Option<&BytesStart<'static>> {
    match child.first()? {
        Event::Start(start) | Event::Empty(start) => Some(start),
        _ => None,
    }
}

fn name_is(child: &Events, names: &[&str]) -> bool {
    start(child).is_some_and(|start| names.contains(&start.name().as_ref()))
}

/// Puts in what is XML already.
fn write_text(writer: &mut Writer<Vec<u8>>, xml: &str) -> Result<(), RenderError> {
    writer.get_mut().extend_from_slice(xml.as_bytes());
    Ok(())
}
