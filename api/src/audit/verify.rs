//! Proof that nobody has touched the log: every record is where the notary put it, as it was.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Serialize;
use sqlx::PgConnection;
use time::Duration;
use uuid::Uuid;

use super::chain::{GENESIS, head_message, link};
use super::store::{self, Head};

/// Links per query.
const BATCH: i64 = 1000;
/// The clocks of replicas differ, and transactions take time.
const TOLERANCE: Duration = Duration::minutes(10);

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable: `audit_…`.
    pub code: &'static str,
    /// Place in the chain; 0 when it has none.
    pub position: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<Uuid>,
    /// In words.
    pub detail: String,
}

impl Finding {
    fn new(code: &'static str, position: i64, record_id: Option<Uuid>, detail: &str) -> Self {
        Self { code, position, record_id, detail: detail.to_owned() }
    }
}

/// What was looked at and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Links that were checked.
    pub links: i64,
    /// Records that wait for the notary.
    pub pending: i64,
    /// The newest link as `<position>:<hash>`; keep it elsewhere, and give it to a later run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The first of each kind of damage, in the order of the chain.
    pub findings: Vec<Finding>,
}

/// A link that was seen before, kept where nobody could change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedHead {
    pub position: i64,
    pub hash: [u8; 32],
}

impl std::str::FromStr for ExpectedHead {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a head is <position>:<64 hexadecimal digits>".to_owned();
        let (position, hash) = text.split_once(':').ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| wrong())?;
        Ok(Self { position: position.parse().map_err(|_| wrong())?, hash: bytes })
    }
}

/// Walks the whole chain in one snapshot.
///
/// # Errors
/// When the database does not answer; damage is a finding, not an error.
pub async fn verify(conn: &mut PgConnection, expected: Option<&ExpectedHead>) -> Result<Report, sqlx::Error> {
    store::begin_snapshot(conn).await?;
    let report = walk(conn, expected).await;
    store::end_snapshot(conn).await?;
    report
}

async fn walk(conn: &mut PgConnection, expected: Option<&ExpectedHead>) -> Result<Report, sqlx::Error> {
    let mut report = Report::default();
    let heads = store::heads(conn).await?;
    let mut signed = heads.iter().peekable();
    let (mut position, mut hash, mut newest) = (0, GENESIS, None);
    loop {
        let links = store::links_after(conn, position, BATCH).await?;
        let Some(last) = links.last().map(|link| link.position) else { break };
        for one in links {
            let at = position + 1;
            if one.position != at {
                report.found("audit_link_missing", at, None, "the chain has a gap here");
            }
            position = one.position;
            report.links += 1;
            match &one.record {
                None => report.found(
                    "audit_record_missing",
                    position,
                    Some(one.record_id),
                    "the record of this link has been deleted",
                ),
                Some(record) => {
                    if link(&hash, position, record) != one.hash[..] {
                        report.found(
                            "audit_record_changed",
                            position,
                            Some(record.id),
                            "the record is not the one that was linked here: it was changed, moved or replaced",
                        );
                    }
                    if newest.is_some_and(|newest| record.at < newest - TOLERANCE) {
                        let detail = "the record is older than those before it: it was inserted later";
                        report.found("audit_record_inserted", position, Some(record.id), detail);
                    }
                    newest = newest.max(Some(record.at));
                }
            }
            hash = one.hash.as_slice().try_into().unwrap_or(GENESIS);
            while let Some(head) = signed.next_if(|head| head.position <= position) {
                check_head(&mut report, head, position, &hash);
            }
            if expected.is_some_and(|head| head.position == position && head.hash != hash) {
                report.found(
                    "audit_head_differs",
                    position,
                    None,
                    "the link is not the one that was expected",
                );
            }
        }
        position = last;
    }
    finish(conn, &mut report, &heads, position, &hash, expected).await?;
    Ok(report)
}

async fn finish(
    conn: &mut PgConnection,
    report: &mut Report,
    heads: &[Head],
    position: i64,
    hash: &[u8; 32],
    expected: Option<&ExpectedHead>,
) -> Result<(), sqlx::Error> {
    let signed_up_to = heads.last().map_or(0, |head| head.position);
    let expected_up_to = expected.map_or(0, |head| head.position);
    if signed_up_to.max(expected_up_to) > position {
        report.found("audit_chain_truncated", position + 1, None, "links at the end of the chain are gone");
    }
    if signed_up_to < position {
        report.found("audit_link_unsigned", signed_up_to + 1, None, "no signature covers this link");
    }
    if let Some(id) = store::unlinked(conn).await? {
        let detail = "the record is in no link and does not wait for the notary: it was put in by hand";
        report.found("audit_record_inserted", 0, Some(id), detail);
    }
    report.pending = store::count_pending(conn).await?;
    report.head = (position > 0).then(|| format!("{position}:{}", hex::encode(hash)));
    Ok(())
}

fn check_head(report: &mut Report, head: &Head, position: i64, hash: &[u8; 32]) {
    if head.position < position || head.hash != hash {
        report.found(
            "audit_head_wrong",
            head.position,
            None,
            "the signed head is not the link of its position",
        );
        return;
    }
    let genuine = head.public_key.as_ref().is_some_and(|key| {
        let signature = URL_SAFE_NO_PAD.encode(&head.signature);
        let message = head_message(head.position, hash);
        let key = DecodingKey::from_ed_der(key);
        jsonwebtoken::crypto::verify(&signature, &message, &key, Algorithm::EdDSA).unwrap_or(false)
    });
    if !genuine {
        report.found("audit_signature_wrong", head.position, None, "the signature is not the notary's");
    }
}

impl Report {
    /// Keeps the first finding of each code: what follows from it would hide it.
    fn found(&mut self, code: &'static str, position: i64, record: Option<Uuid>, detail: &str) {
        if self.findings.iter().all(|finding| finding.code != code) {
            self.findings.push(Finding::new(code, position, record, detail));
        }
    }
}
