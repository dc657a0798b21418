//! A resource as Terraform sees it, made from its row in the table and from the OpenAPI document.
//!
//! What the body of creation takes can be configured. What the body of an update lacks makes another resource. What
//! only the answer has is computed. What may be left out is: its plain default (`""`, `{}`, `[]`, `false`) if an update
//! could set it so; nothing, if an update can take it away; otherwise what the cloud has chosen.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value as Json;

use crate::openapi::{self, Operation, Property};
use crate::schema::{Attribute, Mode, Type};
use crate::table::{Delete, Entry, Note, Read, SHOWN, TABLE};
use crate::value::{Object, Value};

pub struct Resource {
    pub entry: &'static Entry,
    pub attributes: Vec<Attribute>,
    pub create: Operation,
    pub read: Operation,
    pub update: Option<Operation>,
    pub delete: Operation,
    /// Changes what an update does not.
    pub resize: Option<Operation>,
}

/// What only a data source shows.
pub struct Shown {
    pub name: &'static str,
    pub about: &'static str,
    pub read: Operation,
    pub attributes: Vec<Attribute>,
}

pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| TABLE.iter().map(Resource::of).collect());

pub static CATALOGUE: LazyLock<Vec<Shown>> = LazyLock::new(|| {
    let shown = |&(name, about, read, _): &(&'static str, &'static str, &'static str, &'static str)| {
        let read = Operation::of(read);
        let attributes = read.answer.iter().map(|(name, property)| answered(name, name, *property)).collect();
        Shown { name, about, read, attributes }
    };
    SHOWN.iter().map(shown).collect()
});

/// Of durations, like `90s`, `30m` or `1h30m`.
static TEXT: LazyLock<Json> = LazyLock::new(|| serde_json::json!({"type": "string"}));

impl Resource {
    pub fn find(type_name: &str) -> Option<&'static Self> {
        let name = type_name.strip_prefix("cumulo_")?;
        RESOURCES.iter().find(|one| one.entry.name == name)
    }

    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|one| one.name == name)
    }

    fn of(entry: &'static Entry) -> Self {
        let delete = match entry.delete {
            Delete::Call(operation) | Delete::Unset(operation) => Operation::of(operation),
        };
        let (Read::Get(read) | Read::List(read, _) | Read::Within(read, _)) = entry.read;
        let (create, read, update) =
            (Operation::of(entry.create), Operation::of(read), entry.update.map(Operation::of));
        let resize = entry.notes.iter().find_map(|(_, note)| match note {
            Note::By(operation) => Some(Operation::of(operation)),
            _ => None,
        });
        let mut made = Self { entry, attributes: Vec::new(), create, read, update, delete, resize };
        made.attributes = made.derive();
        made
    }

    pub fn notes(&self, name: &str) -> impl Iterator<Item = Note> + use<'_> {
        let name = name.to_owned();
        self.entry.notes.iter().filter(move |(of, _)| *of == name).map(|(_, note)| *note)
    }

    fn has(&self, name: &str, wanted: fn(&Note) -> bool) -> bool {
        self.notes(name).any(|note| wanted(&note))
    }

    fn is_hidden(&self, name: &str) -> bool {
        self.has(name, |note| matches!(note, Note::Hidden))
    }

    /// The parameters of all paths that are attributes: what says which resource it is, beside its `id`.
    pub fn places(&self) -> Vec<&'static str> {
        let mut places = Vec::new();
        for name in self.create.parameters().chain(self.read.parameters()).chain(self.delete.parameters()) {
            if Some(name) != self.entry.own && !places.contains(&name) {
                places.push(name);
            }
        }
        places
    }

    /// What an import names, in order.
    pub fn import_parts(&self) -> Vec<&'static str> {
        let mut parts = self.places();
        if self.entry.own.is_some() {
            parts.push("id");
        } else if self.entry.name == "router_interface" {
            parts.push("subnet");
        }
        parts
    }

    /// What the API shows of it.
    fn answer(&self) -> BTreeMap<&'static str, Property> {
        match self.entry.read {
            Read::Get(_) => self.read.answer.clone(),
            _ if self.entry.own.is_some() => self.create.answer.clone(),
            Read::List(..) => self.create.answer.clone(),
            Read::Within(..) => self.create.body.clone(),
        }
    }

    fn derive(&self) -> Vec<Attribute> {
        let answer = self.answer();
        let mut attributes = Vec::new();
        if let Some(id) = self.entry.own.and(answer.get("id")) {
            let attribute = Attribute::new("id", Type::Text, id.schema);
            let shown_as = Some("id".to_owned());
            attributes.push(Attribute {
                stable: true,
                shown_as,
                help: "It never changes.".to_owned(),
                ..attribute
            });
        }
        for place in self.places().into_iter().filter(|place| !self.create.body.contains_key(place)) {
            attributes.push(self.place(place));
        }
        let asked = self.create.body.iter().map(|(name, property)| (*name, *property));
        let later = self
            .update
            .iter()
            .flat_map(|update| update.body.iter())
            .map(|(name, property)| (*name, Property { required: false, ..*property }));
        let later = later.filter(|(name, _)| {
            !self.create.body.contains_key(name) && matches!(self.entry.read, Read::Get(_))
        });
        for (name, property) in asked.chain(later).filter(|(name, _)| !self.is_hidden(name)) {
            attributes.push(self.asked(name, property, &answer));
        }
        for (name, note) in self.entry.notes {
            if let Note::Extra(help) = note {
                let extra = Attribute::new(name, Type::Text, &TEXT);
                attributes.push(Attribute {
                    mode: Mode::Optional,
                    help: (*help).to_owned(),
                    replaces: true,
                    ..extra
                });
            }
            if let (Note::Once, Some(property)) = (note, self.create.answer.get(name)) {
                let once = Attribute::new(name, Type::Text, property.schema);
                attributes.push(Attribute { sensitive: true, stable: true, ..once });
            }
        }
        for (name, property) in answer {
            let called = self.notes(name).find_map(|note| match note {
                Note::Called(called) => Some(called),
                _ => None,
            });
            let called = called.unwrap_or(name);
            if !self.is_hidden(name) && !attributes.iter().any(|one| one.name == called) {
                let stable = name == "created_at" || self.has(called, |note| matches!(note, Note::Stable));
                attributes.push(Attribute { stable, ..answered(called, name, property) });
            }
        }
        if self.entry.slow {
            attributes.push(timeouts());
        }
        attributes
    }

    fn place(&self, name: &str) -> Attribute {
        let is_project = name == "project";
        let help = if is_project {
            "The project, by name or id; that of the provider unless given.".to_owned()
        } else {
            format!("The {}, by name or id.", name.replace('_', " "))
        };
        let mode = if is_project { Mode::OptionalComputed } else { Mode::Required };
        let place = Attribute::new(name, Type::Text, &TEXT);
        Attribute { mode, help, replaces: true, stable: true, shown_as: Some(name.to_owned()), ..place }
    }

    /// Attributes that are what another one makes them, with that one.
    pub fn followers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.entry.notes.iter().filter_map(|(name, note)| match note {
            Note::Follows(leader) => Some((*name, *leader)),
            _ => None,
        })
    }

    /// Whether a resize has to say this attribute: it changes, or what it follows would change it.
    pub fn is_resized(&self, one: &Attribute, prior: &Object, planned: &Object) -> bool {
        let changes = |name: &str| prior.get(name) != planned.get(name);
        let is_known = planned.get(&one.name).is_some_and(|value| *value != Value::Unknown);
        let leader = self.followers().find(|(name, _)| *name == one.name).map(|(_, leader)| leader);
        let is_of_size = self.notes(&one.name).any(|note| matches!(note, Note::By(_)));
        is_of_size && is_known && (changes(&one.name) || leader.is_some_and(changes))
    }

    fn asked(
        &self,
        name: &'static str,
        property: Property,
        answer: &BTreeMap<&'static str, Property>,
    ) -> Attribute {
        let later = self.update.as_ref().and_then(|update| update.body.get(name));
        let (mut shown_as, mut by, mut chosen, mut default) = (Some(name), false, false, None);
        let mut attribute =
            Attribute::new(name, openapi::ty(property.schema, Mode::Optional), property.schema);
        for note in self.notes(name) {
            match note {
                Note::Kept => shown_as = None,
                Note::ShownAs(other) => shown_as = Some(other),
                Note::Id => {
                    attribute.is_id = true;
                    attribute.help = "The id; not the name, which would not be found again.".to_owned();
                }
                Note::Secret => attribute.sensitive = true,
                Note::WriteOnly => (attribute.write_only, attribute.sensitive, shown_as) = (true, true, None),
                Note::Default(value) => default = Some(value()),
                Note::Chosen => chosen = true,
                Note::By(_) => by = true,
                _ => {}
            }
        }
        // Where something is looked for, what finds it says what it shows.
        let is_shown = |name: &&str| !matches!(self.entry.read, Read::Get(_)) || answer.contains_key(name);
        attribute.shown_as = shown_as.filter(is_shown).map(str::to_owned);
        // Of other resources the API keeps no order.
        let shown = attribute.shown_as.as_deref().and_then(|name| answer.get(name));
        if let (Some(shown), Type::List(_)) = (shown, &attribute.ty)
            && openapi::ty(shown.schema, Mode::Computed) == Type::Set(Box::new(Type::Text))
        {
            attribute.ty = Type::Set(Box::new(Type::Text));
        }
        let can_change = later.is_some() || by || attribute.write_only;
        attribute.replaces = !can_change;
        attribute.stable = !can_change;
        attribute.default = match later {
            Some(later)
                if default.is_none() && !property.required && !chosen && attribute.shown_as.is_some() =>
            {
                plain_default(&attribute.ty, later)
            }
            _ => default,
        };
        let is_cleared = later.is_some_and(|later| openapi::is_nullable(later.schema));
        attribute.mode = if property.required {
            Mode::Required
        } else if attribute.shown_as.is_none() || (is_cleared && !chosen) {
            Mode::Optional
        } else {
            Mode::OptionalComputed
        };
        attribute
    }
}

/// What an update can set it to, as if it had never been set.
fn plain_default(ty: &Type, later: &Property) -> Option<Value> {
    let schema = openapi::resolve(later.schema);
    if openapi::is_nullable(later.schema) || !schema["enum"].is_null() {
        return None;
    }
    match ty {
        // What has a length of its own is no other resource's name, nor of some format.
        Type::Text if schema["maxLength"].is_u64() && schema["minLength"].is_null() => Some(Value::text("")),
        Type::Map(_) => Some(Value::Map(Object::new())),
        Type::Bool => Some(Value::Bool(false)),
        Type::List(_) | Type::Set(_) => Some(Value::List(Vec::new())),
        _ => None,
    }
}

fn answered(called: &str, name: &str, property: Property) -> Attribute {
    let ty = openapi::ty(property.schema, Mode::Computed);
    Attribute { shown_as: Some(name.to_owned()), ..Attribute::new(called, ty, property.schema) }
}

fn timeouts() -> Attribute {
    let one = |name: &str| Attribute {
        mode: Mode::Optional,
        help: format!("Of `{name}`, like `90s`, `30m` or `1h30m`."),
        ..Attribute::new(name, Type::Text, &TEXT)
    };
    let inner = ["create", "update", "delete"].map(one).to_vec();
    let help = "How long to wait for the work to end; half an hour unless given.".to_owned();
    Attribute { mode: Mode::Optional, help, ..Attribute::new("timeouts", Type::Object(inner), &TEXT) }
}
