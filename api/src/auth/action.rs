//! Actions, and where they happen.

use uuid::Uuid;

use super::kind::Kind;
use crate::http::Labels;

/// Something that a caller wants to do. Each action is a type, so that the proof for one is no proof for
/// another.
pub trait Action: Send + Sync + 'static {
    /// As policies name it: `service:Verb`.
    const NAME: &'static str;
    /// What it is done to.
    const KIND: Kind;
    type On: Place;
}

/// Where an action happens, and how a request names that.
pub trait Place: Send + Sync + 'static {
    type Path<'a>: Copy + Send + Sync;
    fn target<'a>(path: Self::Path<'a>) -> Target<'a>;
}

/// A place in a project: its proof names the project.
pub trait InProject: Place {}

/// A place that is one resource which exists: its proof names it.
pub trait OfResource: Place {}

/// What a request says about where it wants to act.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The path segment that names the project, if there is one.
    pub project: Option<&'a str>,
    pub what: What<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The project itself, or all resources of a kind.
    Collection,
    New(New<'a>),
    /// One that exists, by its path segment.
    Existing(&'a str),
}

/// A resource that is about to be made, as far as policies ask.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    pub name: &'a str,
    pub labels: &'a Labels,
    /// Further condition keys, like the instance type that was asked for.
    pub facts: &'a [(&'static str, Fact<'a>)],
}

/// A value of a condition key.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    Text(&'a str),
    Id(Uuid),
    Number(i64),
}

impl<'a> New<'a> {
    pub const fn named(name: &'a str) -> Self {
        static NO_LABELS: Labels = Labels::new();
        Self { name, labels: &NO_LABELS, facts: &[] }
    }
}

macro_rules! places {
    ($($(#[$doc:meta])* $name:ident ($path:ty): $($mark:ident)* => |$p:pat_param| $project:expr, $what:expr;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Place for $name {
                type Path<'a> = $path;
                fn target<'a>($p: Self::Path<'a>) -> Target<'a> {
                    Target { project: $project, what: $what }
                }
            }
            $(impl $mark for $name {})*
        )+
    };
}

places! {
    /// All of a kind in the cloud.
    Cloud(()): => |()| None, What::Collection;
    /// A new one in the cloud.
    NewInCloud(New<'a>): => |new| None, What::New(new);
    /// One of the cloud's.
    CloudResource(&'a str): OfResource => |segment| None, What::Existing(segment);
    /// A project, or all of a kind in it.
    Project(&'a str): InProject => |project| Some(project), What::Collection;
    /// A new one in a project.
    NewInProject((&'a str, New<'a>)): InProject => |(project, new)| Some(project), What::New(new);
    /// One of a project's.
    ProjectResource((&'a str, &'a str)): InProject OfResource =>
        |(project, segment)| Some(project), What::Existing(segment);
}

macro_rules! actions {
    ($($place:ident { $($(#[$doc:meta])* $name:ident ($kind:ident) = $text:literal,)+ })+) => {
        /// Every action there is.
        pub mod actions {
            use super::{Action, Kind};
            $($(
                $(#[$doc])*
                #[derive(Debug, Clone, Copy)]
                pub struct $name;
                impl Action for $name {
                    const NAME: &'static str = $text;
                    const KIND: Kind = Kind::$kind;
                    type On = super::$place;
                }
            )+)+

            /// All of them. Policies, API keys and audit records exist in projects and in the cloud, with
            /// actions of one name.
            pub const ALL: &[super::ActionInfo] =
                &[$($(super::ActionInfo::new($text, Kind::$kind, stringify!($place))),+),+];
        }
    };
}

/// What there is to know of an action without its type.
#[derive(Debug, Clone, Copy)]
pub struct ActionInfo {
    pub name: &'static str,
    pub kind: Kind,
    pub in_project: bool,
    /// Whether what it is done to does not exist yet.
    pub makes: bool,
}

impl ActionInfo {
    const fn new(name: &'static str, kind: Kind, place: &str) -> Self {
        let place = place.as_bytes();
        Self {
            name,
            kind,
            in_project: !matches!(place, b"Cloud" | b"NewInCloud" | b"CloudResource"),
            makes: matches!(place, b"NewInCloud" | b"NewInProject"),
        }
    }
}

actions! {
    Cloud {
        ListProjects(Project) = "project:ListProjects",
        ListInstanceTypes(InstanceType) = "compute:ListInstanceTypes",
        ListHosts(Host) = "host:ListHosts",
        ListDrift(Host) = "host:ListDrift",
        CreateHostJoinToken(Host) = "host:CreateHostJoinToken",
        ListUsers(User) = "iam:ListUsers",
        ListGroups(Group) = "iam:ListGroups",
        ListCloudPolicies(Policy) = "iam:ListPolicies",
        ListCloudPolicyAttachments(Attachment) = "iam:ListPolicyAttachments",
        AttachCloudPolicy(Attachment) = "iam:AttachPolicy",
        SimulateCloudPolicies(Policy) = "iam:SimulatePolicies",
        ListSigningKeys(SigningKey) = "iam:ListSigningKeys",
        RotateSigningKey(SigningKey) = "iam:RotateSigningKey",
        GetQuotaDefaults(Quota) = "quota:GetQuotaDefaults",
        UpdateQuotaDefaults(Quota) = "quota:UpdateQuotaDefaults",
        ListCloudInstances(Instance) = "compute:ListInstances",
        ListCloudEvents(Event) = "event:ListEvents",
        ListCloudAuditRecords(AuditRecord) = "audit:ListRecords",
        ListAddressPools(AddressPool) = "network:ListAddressPools",
        ListPools(Pool) = "pool:ListPools",
        GetPlacementSettings(Host) = "host:GetPlacementSettings",
        UpdatePlacementSettings(Host) = "host:UpdatePlacementSettings",
        GetCapacity(Host) = "host:GetCapacity",
        ExplainPlacement(Host) = "host:ExplainPlacement",
    }
    NewInCloud {
        CreateProject(Project) = "project:CreateProject",
        CreateInstanceType(InstanceType) = "compute:CreateInstanceType",
        CreateUser(User) = "iam:CreateUser",
        CreateGroup(Group) = "iam:CreateGroup",
        CreateCloudPolicy(Policy) = "iam:CreatePolicy",
        CreateAddressPool(AddressPool) = "network:CreateAddressPool",
        CreatePool(Pool) = "pool:CreatePool",
    }
    CloudResource {
        GetInstanceType(InstanceType) = "compute:GetInstanceType",
        DeleteInstanceType(InstanceType) = "compute:DeleteInstanceType",
        GetHost(Host) = "host:GetHost",
        DeclareHostDead(Host) = "host:DeclareHostDead",
        ReadmitHost(Host) = "host:ReadmitHost",
        UpdateHost(Host) = "host:UpdateHost",
        DrainHost(Host) = "host:DrainHost",
        EndHostMaintenance(Host) = "host:EndHostMaintenance",
        DeleteHost(Host) = "host:DeleteHost",
        GetUser(User) = "iam:GetUser",
        UpdateUser(User) = "iam:UpdateUser",
        DeleteUser(User) = "iam:DeleteUser",
        ResetUserPassword(User) = "iam:ResetUserPassword",
        ChangeUserPassword(User) = "iam:ChangeUserPassword",
        ListUserSessions(User) = "iam:ListUserSessions",
        RevokeUserSession(User) = "iam:RevokeUserSession",
        EnrolUserTotp(User) = "iam:EnrolUserTotp",
        RemoveUserTotp(User) = "iam:RemoveUserTotp",
        ListUserApiKeys(User) = "iam:ListApiKeys",
        CreateUserApiKey(User) = "iam:CreateApiKey",
        RevokeUserApiKey(User) = "iam:RevokeApiKey",
        GetGroup(Group) = "iam:GetGroup",
        UpdateGroup(Group) = "iam:UpdateGroup",
        DeleteGroup(Group) = "iam:DeleteGroup",
        ListGroupMembers(Group) = "iam:ListGroupMembers",
        AddGroupMember(Group) = "iam:AddGroupMember",
        RemoveGroupMember(Group) = "iam:RemoveGroupMember",
        GetCloudPolicy(Policy) = "iam:GetPolicy",
        UpdateCloudPolicy(Policy) = "iam:UpdatePolicy",
        DeleteCloudPolicy(Policy) = "iam:DeletePolicy",
        DetachCloudPolicy(Attachment) = "iam:DetachPolicy",
        GetCloudAuditRecord(AuditRecord) = "audit:GetRecord",
        GetAddressPool(AddressPool) = "network:GetAddressPool",
        UpdateAddressPool(AddressPool) = "network:UpdateAddressPool",
        DeleteAddressPool(AddressPool) = "network:DeleteAddressPool",
        GetPool(Pool) = "pool:GetPool",
        UpdatePool(Pool) = "pool:UpdatePool",
        DeletePool(Pool) = "pool:DeletePool",
    }
    Project {
        GetProject(Project) = "project:GetProject",
        UpdateProject(Project) = "project:UpdateProject",
        DeleteProject(Project) = "project:DeleteProject",
        ListImages(Image) = "image:ListImages",
        ListInstances(Instance) = "compute:ListInstances",
        /// Asked for beside the right to do it to each of them.
        ActOnInstances(Instance) = "compute:ActOnInstances",
        ListKeyPairs(KeyPair) = "compute:ListKeyPairs",
        ListPlacementGroups(PlacementGroup) = "compute:ListPlacementGroups",
        ListInstanceMetrics(Instance) = "compute:ListInstanceMetrics",
        ListScrapeTargets(Instance) = "compute:ListScrapeTargets",
        PlanPlacements(Instance) = "compute:PlanPlacements",
        ListOperations(Operation) = "operation:ListOperations",
        ListServiceAccounts(ServiceAccount) = "iam:ListServiceAccounts",
        ListPolicies(Policy) = "iam:ListPolicies",
        ListPolicyAttachments(Attachment) = "iam:ListPolicyAttachments",
        AttachPolicy(Attachment) = "iam:AttachPolicy",
        SimulatePolicies(Policy) = "iam:SimulatePolicies",
        GetQuotas(Quota) = "quota:GetQuotas",
        UpdateQuotas(Quota) = "quota:UpdateQuotas",
        ListEvents(Event) = "event:ListEvents",
        ListAuditRecords(AuditRecord) = "audit:ListRecords",
        ListVolumes(Volume) = "volume:ListVolumes",
        ListSnapshots(Snapshot) = "volume:ListSnapshots",
        ListSnapshotSchedules(SnapshotSchedule) = "volume:ListSnapshotSchedules",
        ListNetworks(Network) = "network:ListNetworks",
        ListSubnets(Subnet) = "network:ListSubnets",
        ListPorts(Port) = "network:ListPorts",
        ListRouters(Router) = "network:ListRouters",
        ListFloatingIps(FloatingIp) = "network:ListFloatingIps",
        ListSecurityGroups(SecurityGroup) = "network:ListSecurityGroups",
    }
    NewInProject {
        CreateImage(Image) = "image:CreateImage",
        CreateInstance(Instance) = "compute:CreateInstance",
        /// To give an instance a size that is not its type's own.
        UseCustomSize(Instance) = "compute:UseCustomSize",
        CreateKeyPair(KeyPair) = "compute:CreateKeyPair",
        CreatePlacementGroup(PlacementGroup) = "compute:CreatePlacementGroup",
        CreateServiceAccount(ServiceAccount) = "iam:CreateServiceAccount",
        CreatePolicy(Policy) = "iam:CreatePolicy",
        CreateVolume(Volume) = "volume:CreateVolume",
        CreateSnapshot(Snapshot) = "volume:CreateSnapshot",
        CreateSnapshotSchedule(SnapshotSchedule) = "volume:CreateSnapshotSchedule",
        CreateNetwork(Network) = "network:CreateNetwork",
        CreateSubnet(Subnet) = "network:CreateSubnet",
        CreatePort(Port) = "network:CreatePort",
        CreateRouter(Router) = "network:CreateRouter",
        CreateFloatingIp(FloatingIp) = "network:CreateFloatingIp",
        CreateSecurityGroup(SecurityGroup) = "network:CreateSecurityGroup",
    }
    ProjectResource {
        GetImage(Image) = "image:GetImage",
        UploadImage(Image) = "image:UploadImage",
        UpdateImage(Image) = "image:UpdateImage",
        ImportImage(Image) = "image:ImportImage",
        ExportImage(Image) = "image:ExportImage",
        DeleteImage(Image) = "image:DeleteImage",
        ListImageShares(Image) = "image:ListImageShares",
        ShareImage(Image) = "image:ShareImage",
        UnshareImage(Image) = "image:UnshareImage",
        PublishImage(Image) = "image:PublishImage",
        UnpublishImage(Image) = "image:UnpublishImage",
        DeprecateImage(Image) = "image:DeprecateImage",
        UndeprecateImage(Image) = "image:UndeprecateImage",
        GetInstance(Instance) = "compute:GetInstance",
        UpdateInstance(Instance) = "compute:UpdateInstance",
        StartInstance(Instance) = "compute:StartInstance",
        StopInstance(Instance) = "compute:StopInstance",
        PauseInstance(Instance) = "compute:PauseInstance",
        ResumeInstance(Instance) = "compute:ResumeInstance",
        ResizeInstance(Instance) = "compute:ResizeInstance",
        RebuildInstance(Instance) = "compute:RebuildInstance",
        RescueInstance(Instance) = "compute:RescueInstance",
        RebootInstance(Instance) = "compute:RebootInstance",
        DeleteInstance(Instance) = "compute:DeleteInstance",
        MoveInstance(Instance) = "compute:MoveInstance",
        MigrateInstance(Instance) = "compute:MigrateInstance",
        GetInstanceSerial(Instance) = "compute:GetInstanceSerial",
        GetInstanceMetrics(Instance) = "compute:GetInstanceMetrics",
        GetInstanceGuest(Instance) = "compute:GetInstanceGuest",
        GetInstanceScreenshot(Instance) = "compute:GetInstanceScreenshot",
        /// Asked for again while the console is open.
        OpenConsole(Instance) = "compute:OpenConsole",
        /// Asked for beside the right to make an image.
        ExportInstance(Instance) = "compute:ExportInstance",
        GetKeyPair(KeyPair) = "compute:GetKeyPair",
        UpdateKeyPair(KeyPair) = "compute:UpdateKeyPair",
        DeleteKeyPair(KeyPair) = "compute:DeleteKeyPair",
        GetPlacementGroup(PlacementGroup) = "compute:GetPlacementGroup",
        UpdatePlacementGroup(PlacementGroup) = "compute:UpdatePlacementGroup",
        DeletePlacementGroup(PlacementGroup) = "compute:DeletePlacementGroup",
        GetOperation(Operation) = "operation:GetOperation",
        CancelOperation(Operation) = "operation:CancelOperation",
        GetServiceAccount(ServiceAccount) = "iam:GetServiceAccount",
        UpdateServiceAccount(ServiceAccount) = "iam:UpdateServiceAccount",
        DeleteServiceAccount(ServiceAccount) = "iam:DeleteServiceAccount",
        ListApiKeys(ServiceAccount) = "iam:ListApiKeys",
        CreateApiKey(ServiceAccount) = "iam:CreateApiKey",
        RevokeApiKey(ServiceAccount) = "iam:RevokeApiKey",
        GetPolicy(Policy) = "iam:GetPolicy",
        UpdatePolicy(Policy) = "iam:UpdatePolicy",
        DeletePolicy(Policy) = "iam:DeletePolicy",
        DetachPolicy(Attachment) = "iam:DetachPolicy",
        GetAuditRecord(AuditRecord) = "audit:GetRecord",
        GetVolume(Volume) = "volume:GetVolume",
        UpdateVolume(Volume) = "volume:UpdateVolume",
        DeleteVolume(Volume) = "volume:DeleteVolume",
        /// Asked for beside the right to make an image.
        ExportVolume(Volume) = "volume:ExportVolume",
        /// Asked for beside the right to attach to the instance.
        LendVolume(Volume) = "volume:AttachVolume",
        /// Asked for beside the right to detach from the instance.
        ReturnVolume(Volume) = "volume:DetachVolume",
        /// Asked for beside the right to make the snapshot or the volume.
        SnapshotVolume(Volume) = "volume:SnapshotVolume",
        /// Asked for beside the right to make an instance.
        CloneInstance(Instance) = "compute:CloneInstance",
        /// Asked for beside the right to make the snapshot.
        SnapshotInstance(Instance) = "compute:SnapshotInstance",
        GetSnapshot(Snapshot) = "volume:GetSnapshot",
        UpdateSnapshot(Snapshot) = "volume:UpdateSnapshot",
        DeleteSnapshot(Snapshot) = "volume:DeleteSnapshot",
        /// To put volumes back to it, and to make new ones from it.
        RestoreSnapshot(Snapshot) = "volume:RestoreSnapshot",
        GetSnapshotSchedule(SnapshotSchedule) = "volume:GetSnapshotSchedule",
        UpdateSnapshotSchedule(SnapshotSchedule) = "volume:UpdateSnapshotSchedule",
        DeleteSnapshotSchedule(SnapshotSchedule) = "volume:DeleteSnapshotSchedule",
        /// Asked for beside the right to make an image.
        ExportSnapshot(Snapshot) = "volume:ExportSnapshot",
        GetNetwork(Network) = "network:GetNetwork",
        UpdateNetwork(Network) = "network:UpdateNetwork",
        DeleteNetwork(Network) = "network:DeleteNetwork",
        GetSubnet(Subnet) = "network:GetSubnet",
        UpdateSubnet(Subnet) = "network:UpdateSubnet",
        DeleteSubnet(Subnet) = "network:DeleteSubnet",
        GetPort(Port) = "network:GetPort",
        UpdatePort(Port) = "network:UpdatePort",
        DeletePort(Port) = "network:DeletePort",
        GetRouter(Router) = "network:GetRouter",
        UpdateRouter(Router) = "network:UpdateRouter",
        DeleteRouter(Router) = "network:DeleteRouter",
        GetFloatingIp(FloatingIp) = "network:GetFloatingIp",
        UpdateFloatingIp(FloatingIp) = "network:UpdateFloatingIp",
        DeleteFloatingIp(FloatingIp) = "network:DeleteFloatingIp",
        GetSecurityGroup(SecurityGroup) = "network:GetSecurityGroup",
        UpdateSecurityGroup(SecurityGroup) = "network:UpdateSecurityGroup",
        DeleteSecurityGroup(SecurityGroup) = "network:DeleteSecurityGroup",
        AttachPort(Instance) = "compute:AttachPort",
        DetachPort(Instance) = "compute:DetachPort",
        AttachVolume(Instance) = "compute:AttachVolume",
        DetachVolume(Instance) = "compute:DetachVolume",
        ForceDetachVolume(Instance) = "compute:ForceDetachVolume",
        AddRouterInterface(Router) = "network:AddRouterInterface",
        RemoveRouterInterface(Router) = "network:RemoveRouterInterface",
        AddSecurityGroupRule(SecurityGroup) = "network:AddSecurityGroupRule",
        RemoveSecurityGroupRule(SecurityGroup) = "network:RemoveSecurityGroupRule",
        ReplaceSecurityGroupRules(SecurityGroup) = "network:ReplaceSecurityGroupRules",
        AssociateFloatingIp(FloatingIp) = "network:AssociateFloatingIp",
        DisassociateFloatingIp(FloatingIp) = "network:DisassociateFloatingIp",
    }
}
