//! Images that a host makes of its disks: see [`super::DesiredBody::SendImage`].
//!
//! The order is in the feed until it is carried out or cancelled. Of an order that is over every call is answered
//! 404, and the host drops what it has made for it.

use serde::{Deserialize, Serialize};

use crate::agent::Epoch;

/// The query of `POST /agent/v1/images/{transfer_id}`. The body is one qcow2 file that needs no other, its length in
/// `Content-Length`. While another attempt at the same order lasts, the answer is 503 `busy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendQuery {
    pub epoch: Epoch,
}

/// `POST /agent/v1/images/{transfer_id}/status`: how far the host is before it sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageStatus {
    pub epoch: Epoch,
    pub status: Sending,
}

/// What a host does about an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Sending {
    /// It makes the file.
    Converting,
    /// It cannot now, and tries again by itself. `detail` is a sentence for people; never a path or a host name.
    Waiting { detail: String },
    /// It never can.
    Failed { detail: String },
}
