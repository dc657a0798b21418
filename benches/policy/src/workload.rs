//! What both engines are asked: 50 statements of a principal with broad rights and some guard rails, and
//! random requests. Stated once, as plain data, and translated to each language.

use std::net::Ipv4Addr;

/// The actions of a middling cloud.
pub const ACTIONS: &[&str] = &[
    "compute:CreateInstance",
    "compute:DeleteInstance",
    "compute:GetInstance",
    "compute:ListInstances",
    "compute:UpdateInstance",
    "compute:StartInstance",
    "compute:StopInstance",
    "compute:RebootInstance",
    "compute:GetSerialLog",
    "compute:OpenConsole",
    "compute:CreateKeyPair",
    "compute:DeleteKeyPair",
    "compute:GetKeyPair",
    "compute:ListKeyPairs",
    "storage:CreateVolume",
    "storage:DeleteVolume",
    "storage:GetVolume",
    "storage:ListVolumes",
    "storage:UpdateVolume",
    "storage:AttachVolume",
    "storage:DetachVolume",
    "storage:CreateSnapshot",
    "storage:DeleteSnapshot",
    "storage:GetSnapshot",
    "storage:ListSnapshots",
    "network:CreateNetwork",
    "network:DeleteNetwork",
    "network:GetNetwork",
    "network:ListNetworks",
    "network:UpdateNetwork",
    "network:CreateFloatingIp",
    "network:DeleteFloatingIp",
    "network:GetFloatingIp",
    "network:ListFloatingIps",
    "network:AttachFloatingIp",
    "iam:CreateUser",
    "iam:DeleteUser",
    "iam:GetUser",
    "iam:ListUsers",
    "iam:AttachPolicy",
];

/// (service, type) of all resources.
pub const RESOURCES: &[(&str, &str)] = &[
    ("compute", "instance"),
    ("compute", "key-pair"),
    ("storage", "volume"),
    ("storage", "snapshot"),
    ("network", "network"),
    ("network", "floating-ip"),
    ("iam", "user"),
];

pub const PROJECTS: &[&str] = &["shop", "blog", "data", "test"];

const NAMES: &[&str] = &[
    "web-1",
    "web-2",
    "web-3",
    "db",
    "db-replica",
    "cache",
    "queue",
    "worker-1",
    "worker-2",
    "backup",
    "build",
    "*",
];

/// One statement. `*` at the end of an action or a name is a wildcard.
pub struct Rule {
    pub deny: bool,
    pub actions: Vec<&'static str>,
    pub project: &'static str,
    pub kind: (&'static str, &'static str),
    pub name: &'static str,
    pub condition: Option<Condition>,
}

#[derive(Clone, Copy)]
pub enum Condition {
    From(&'static str),
    NotFrom(&'static str),
    SecondFactor(bool),
    VcpusAbove(i64),
    Label(&'static str, &'static str),
}

pub struct Resource {
    pub kind: (&'static str, &'static str),
    pub project: &'static str,
    /// `*` for the collection.
    pub name: &'static str,
    pub id: String,
    pub labels: Vec<(&'static str, &'static str)>,
}

pub struct Request {
    pub action: &'static str,
    /// Index into the resources.
    pub resource: usize,
    pub source: Ipv4Addr,
    pub second_factor: bool,
    pub vcpus: Option<i64>,
}

pub struct Workload {
    pub rules: Vec<Rule>,
    pub resources: Vec<Resource>,
    pub requests: Vec<Request>,
}

/// Whether a text fits a pattern of this file.
pub fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => pattern == text,
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }
}

impl Workload {
    pub fn new(seed: u64, requests: usize) -> Self {
        let mut dice = Dice(seed);
        let resources = resources(&mut dice);
        let requests = (0..requests).map(|_| request(&mut dice, &resources)).collect();
        Self { rules: rules(), resources, requests }
    }
}

/// 50 statements: for each service what may be read, run and changed in which project, then the guard rails.
fn rules() -> Vec<Rule> {
    let allow = |actions: &[&'static str], project, kind, name, condition| Rule {
        deny: false,
        actions: actions.to_vec(),
        project,
        kind,
        name,
        condition,
    };
    let mut rules = Vec::new();
    for kind in RESOURCES[..6].iter().copied() {
        let (reads, writes): (&[_], &[_]) = match kind.0 {
            "compute" => (&["compute:Get*", "compute:List*"], &["compute:*"]),
            "storage" => (&["storage:Get*", "storage:List*"], &["storage:*"]),
            _ => (&["network:Get*", "network:List*"], &["network:*"]),
        };
        rules.push(allow(reads, "shop", kind, "*", None));
        rules.push(allow(writes, "shop", kind, "web-*", Some(Condition::From("10.0.0.0/8"))));
        rules.push(allow(writes, "test", kind, "*", None));
        rules.push(allow(reads, "blog", kind, "*", Some(Condition::SecondFactor(true))));
        rules.push(allow(writes, "blog", kind, "*", Some(Condition::Label("team", "web"))));
        rules.push(Rule {
            deny: true,
            ..allow(writes, "data", kind, "*", Some(Condition::NotFrom("10.1.0.0/16")))
        });
    }
    let instance = RESOURCES[0];
    let power: &[_] = &["compute:StartInstance", "compute:StopInstance", "compute:RebootInstance"];
    rules.push(allow(power, "data", instance, "*", Some(Condition::Label("env", "test"))));
    rules.push(allow(&["compute:OpenConsole"], "data", instance, "db", Some(Condition::SecondFactor(true))));
    rules.push(allow(&["compute:GetSerialLog"], "data", instance, "*", None));
    rules.push(allow(&["storage:CreateSnapshot"], "data", RESOURCES[3], "*", None));
    rules.push(allow(&["iam:GetUser", "iam:ListUsers"], "shop", RESOURCES[6], "*", None));
    let deny = |actions: &[&'static str], project, kind, name, condition| Rule {
        deny: true,
        ..allow(actions, project, kind, name, condition)
    };
    rules.push(deny(&["compute:DeleteInstance"], "shop", instance, "db", None));
    rules.push(deny(
        &["compute:DeleteInstance"],
        "blog",
        instance,
        "*",
        Some(Condition::SecondFactor(false)),
    ));
    rules.push(deny(&["compute:CreateInstance"], "shop", instance, "*", Some(Condition::VcpusAbove(8))));
    rules.push(deny(&["compute:CreateInstance"], "test", instance, "*", Some(Condition::VcpusAbove(2))));
    rules.push(deny(&["storage:Delete*"], "shop", RESOURCES[2], "backup", None));
    rules.push(deny(&["storage:Delete*"], "test", RESOURCES[3], "*", Some(Condition::Label("env", "prod"))));
    rules.push(deny(&["network:Delete*"], "test", RESOURCES[4], "*", Some(Condition::NotFrom("10.0.0.0/8"))));
    rules.push(deny(&["iam:*"], "data", RESOURCES[6], "*", None));
    rules.push(deny(
        &["compute:OpenConsole"],
        "test",
        instance,
        "web-*",
        Some(Condition::NotFrom("10.0.0.0/8")),
    ));
    rules
}

fn resources(dice: &mut Dice) -> Vec<Resource> {
    let mut resources = Vec::new();
    for (kind, project) in
        RESOURCES.iter().flat_map(|kind| PROJECTS.iter().map(move |project| (*kind, *project)))
    {
        for name in NAMES {
            let mut labels = Vec::new();
            if *name != "*" {
                labels.extend(dice.pick(&[None, Some(("env", "prod")), Some(("env", "test"))]));
                labels.extend(dice.pick(&[None, Some(("team", "web")), Some(("team", "data"))]));
            }
            let id = format!("0190a5f2-7c3e-7a10-8000-{:012x}", dice.next() >> 16);
            resources.push(Resource { kind, project, name, id, labels });
        }
    }
    resources
}

/// An action on a resource of a service that has it, mostly of the projects that the rules speak of.
fn request(dice: &mut Dice, resources: &[Resource]) -> Request {
    loop {
        let action = dice.pick(ACTIONS);
        let resource = (dice.next() % resources.len() as u64) as usize;
        if action.split(':').next() != Some(resources[resource].kind.0) {
            continue;
        }
        let source = dice.pick(&[[10, 0, 0, 7], [10, 1, 2, 3], [192, 0, 2, 7], [10, 1, 0, 9]]);
        let vcpus = action.starts_with("compute:Create").then(|| dice.pick(&[1, 2, 4, 8, 16]));
        return Request {
            action,
            resource,
            source: source.into(),
            second_factor: dice.pick(&[true, false]),
            vcpus,
        };
    }
}
