//! The wire of operations.

use protocol::{OperationId, PrincipalId, RequestId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// The record of one mutating call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Operation {
    pub id: OperationId,
    /// The operation of this API that began it.
    #[schema(example = "create_instance")]
    pub kind: String,
    pub resource_id: Uuid,
    pub resource_name: String,
    pub status: OperationStatus,
    /// How much of the expected trail is behind it.
    #[schema(minimum = 0, maximum = 100)]
    pub progress_percent: u8,
    /// Bytes, if it moves any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<OperationProgress>,
    /// Every step with its time, in order.
    pub trail: Vec<TrailStep>,
    /// Why it failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationError>,
    /// Who asked.
    pub principal_id: PrincipalId,
    /// The request that began it.
    pub request_id: RequestId,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// By then it has ended, or it fails with `deadline_exceeded`.
    #[serde(with = "time::serde::rfc3339")]
    pub deadline_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    Running,
    Succeeded,
    Failed,
    /// Overtaken by a later call on the same resource, or ended by whoever asked for that.
    Cancelled,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TrailStep {
    #[schema(example = "domain_defined")]
    pub step: String,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How far an operation is that moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct OperationProgress {
    /// Bytes that have arrived.
    #[schema(minimum = 0)]
    pub bytes: i64,
    /// Bytes in all, once they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub total_bytes: Option<i64>,
    /// The first of the second, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub percent: Option<u8>,
}

impl OperationProgress {
    pub(super) fn of(bytes: i64, total_bytes: Option<i64>) -> Self {
        let percent = total_bytes.filter(|total| *total > 0).map(|total| {
            let percent = i128::from(bytes) * 100 / i128::from(total);
            u8::try_from(percent.clamp(0, 100)).unwrap_or(100)
        });
        Self { bytes, total_bytes, percent }
    }
}

/// A problem, without the parts that belong to an HTTP answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperationError {
    #[schema(example = "deadline_exceeded")]
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl OperationStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn from_text(text: &str) -> Self {
        match text {
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => Self::Running,
        }
    }
}

/// How many steps each kind takes when all goes well.
fn expected_steps(kind: &str) -> usize {
    match kind {
        "create_instance" => 10,
        "reboot_instance" => 7,
        _ => 4,
    }
}

/// 100 once it succeeded, at most 99 before.
pub(super) fn percent(
    kind: &str,
    status: OperationStatus,
    steps: usize,
    progress: Option<OperationProgress>,
) -> u8 {
    if status == OperationStatus::Succeeded {
        return 100;
    }
    if let Some(progress) = progress {
        return progress.percent.unwrap_or(0).min(99);
    }
    u8::try_from((steps * 100 / expected_steps(kind)).min(99)).unwrap_or(99)
}
