//! Actions for which there are rules beyond the policies.

use super::action::{Action, actions};

/// What concerns more than the project where it happens: who may give rights in a project must not be able to give
/// these.
const DECIDED_IN_CLOUD: &[&str] = &[
    actions::UpdateQuotas::NAME,
    actions::PublishImage::NAME,
    actions::ForceDetachVolume::NAME,
    actions::MigrateInstance::NAME,
    actions::UseCustomSize::NAME,
];

/// Whether what is attached in a project is of no account.
pub(crate) fn is_decided_in_cloud(action: &str) -> bool {
    DECIDED_IN_CLOUD.contains(&action)
}

/// Whether it makes or changes principals, credentials, groups, policies or attachments. With these, a key that is
/// bound by a policy of its own could make itself another that is not.
pub(super) fn changes_identity(action: &str) -> bool {
    let reads = |verb: &str| ["Get", "List", "Simulate"].iter().any(|read| verb.starts_with(read));
    action.strip_prefix("iam:").is_some_and(|verb| !reads(verb))
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::ACTION_NAMES;
    use super::*;

    #[test]
    fn what_changes_identity_is_known() {
        let mut changing = ACTION_NAMES.clone();
        changing.retain(|action| changes_identity(action));
        assert_eq!(
            changing,
            [
                "iam:AddGroupMember",
                "iam:AttachPolicy",
                "iam:ChangeUserPassword",
                "iam:CreateApiKey",
                "iam:CreateGroup",
                "iam:CreatePolicy",
                "iam:CreateServiceAccount",
                "iam:CreateUser",
                "iam:DeleteGroup",
                "iam:DeletePolicy",
                "iam:DeleteServiceAccount",
                "iam:DeleteUser",
                "iam:DetachPolicy",
                "iam:EnrolUserTotp",
                "iam:RemoveGroupMember",
                "iam:RemoveUserTotp",
                "iam:ResetUserPassword",
                "iam:RevokeApiKey",
                "iam:RevokeUserSession",
                "iam:RotateSigningKey",
                "iam:UpdateGroup",
                "iam:UpdatePolicy",
                "iam:UpdateServiceAccount",
                "iam:UpdateUser",
            ]
        );
    }
}
