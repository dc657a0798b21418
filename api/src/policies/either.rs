//! Actions that there are twice: in a project, and in the cloud.

use crate::auth::{Action, actions};

macro_rules! either {
    ($($name:ident: $in_project:ident | $in_cloud:ident;)+) => {$(
        pub(super) trait $name: Action {}
        impl $name for actions::$in_project {}
        impl $name for actions::$in_cloud {}
    )+};
}

either! {
    Create: CreatePolicy | CreateCloudPolicy;
    List: ListPolicies | ListCloudPolicies;
    Update: UpdatePolicy | UpdateCloudPolicy;
    Delete: DeletePolicy | DeleteCloudPolicy;
    Attach: AttachPolicy | AttachCloudPolicy;
    ListAttached: ListPolicyAttachments | ListCloudPolicyAttachments;
    Detach: DetachPolicy | DetachCloudPolicy;
}
