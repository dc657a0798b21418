//! What the tests share: a vocabulary like the API's, and short ways to say documents and requests.

use policy::{
    Context, Decision, Document, Key, KeyType, Names, Policy, Request, Resource, Vocabulary, evaluate,
};
use serde_json::{Value, json};

pub const VOCABULARY: Vocabulary = Vocabulary {
    actions: &[
        "compute:CreateInstance",
        "compute:UseCustomSize",
        "compute:DeleteInstance",
        "compute:GetInstance",
        "compute:ListInstances",
        "compute:StartInstance",
        "compute:UpdateInstance",
        "compute:CreateKeyPair",
        "image:DeleteImage",
        "storage:CreateVolume",
        "storage:DeleteVolume",
        "iam:AttachPolicy",
        "iam:CreateUser",
        "audit:ListRecords",
        "project:DeleteProject",
        "project:UpdateProject",
        "quota:UpdateQuotas",
    ],
    resources: &[("compute", "instance"), ("compute", "key-pair"), ("storage", "volume"), ("iam", "user")],
    keys: &[
        key("cumulo:SourceIp", KeyType::Ip),
        key("cumulo:CurrentTime", KeyType::Date),
        key("cumulo:SecureTransport", KeyType::Bool),
        key("cumulo:MultiFactorAuthPresent", KeyType::Bool),
        key("cumulo:MultiFactorAuthAge", KeyType::Numeric),
        key("cumulo:PrincipalName", KeyType::String),
        key("cumulo:PrincipalId", KeyType::String),
        key("cumulo:PrincipalType", KeyType::String),
        key("cumulo:CredentialType", KeyType::String),
        key("cumulo:ResourceLabel/", KeyType::String),
        key("cumulo:RequestLabel/", KeyType::String),
        Key { name: "cumulo:LabelKeys", value: KeyType::String, multivalued: true },
        Key { name: "compute:Addresses", value: KeyType::Ip, multivalued: true },
        Key { name: "compute:Sizes", value: KeyType::Numeric, multivalued: true },
        key("compute:InstanceType", KeyType::String),
        key("compute:Image", KeyType::String),
        key("compute:Vcpus", KeyType::Numeric),
        key("compute:MemoryMib", KeyType::Numeric),
        key("compute:RootDiskGib", KeyType::Numeric),
    ],
};

const fn key(name: &'static str, value: KeyType) -> Key {
    Key { name, value, multivalued: false }
}

pub const SHOP: Names<'static> = Names { name: "shop", id: Some("0190-shop") };
pub const WEB: Names<'static> = Names { name: "web", id: Some("0190-web") };

pub fn parse(document: &Value) -> Document {
    Document::parse(document, &VOCABULARY).unwrap_or_else(|findings| panic!("{document:#}\n{findings:#?}"))
}

pub fn compile(document: &Value) -> Policy {
    Policy::compile(&parse(document))
}

/// A document of these statements.
pub fn document(statements: impl Into<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements.into()})
}

/// A statement that allows one action on everything, changed by `fields`; `null` removes a field.
pub fn statement(fields: &Value) -> Value {
    let mut statement = json!({"Effect": "Allow", "Action": "compute:GetInstance", "Resource": "*"});
    let (Some(all), Some(changes)) = (statement.as_object_mut(), fields.as_object()) else { unreachable!() };
    for (name, value) in changes {
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    statement
}

pub const INSTANCE: Resource<'static> =
    Resource { service: "compute", project: Some(SHOP), kind: "instance", target: Some(WEB) };

pub const INSTANCES: Resource<'static> = Resource { target: None, ..INSTANCE };

/// The decision of one document about getting the instance `web` of the project `shop`.
pub fn decide(document: &Value, context: &Context) -> Decision {
    let request = Request { action: "compute:GetInstance", resource: INSTANCE, context };
    evaluate(&[compile(document)], &request)
}
