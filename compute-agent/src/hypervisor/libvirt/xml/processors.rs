//! What processors guests may have, as libvirt's domain capabilities tell
//! (<https://libvirt.org/formatdomaincaps.html>).

use protocol::agent::is_model_name;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::cards::attribute;

/// The models that guests may have by name on this host.
pub(in super::super) fn usable_models(capabilities: &str) -> Result<Vec<String>, quick_xml::Error> {
    let mut reader = Reader::from_str(capabilities);
    let (mut models, mut named, mut name) = (Vec::new(), false, None::<String>);
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(models),
            Event::Start(element) if element.name().as_ref() == "mode" => {
                named = attribute(&element, "name")?.as_deref() == Some("custom");
            }
            Event::Start(element) if named && element.name().as_ref() == "model" => {
                name = (attribute(&element, "usable")?.as_deref() == Some("yes")).then(String::new);
            }
            Event::Text(text) => {
                if let Some(name) = &mut name {
                    name.push_str(&text);
                }
            }
            Event::End(element) => match element.name().as_ref() {
                "mode" => named = false,
                "model" => models.extend(name.take().filter(|name| is_model_name(name))),
                _ => {}
            },
            _ => {}
        }
    }
}
