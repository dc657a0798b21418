//! From a verified client certificate to the host it stands for.

use protocol::HostId;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

const SUFFIX: &str = ".host.cumulo.internal";

/// The one name in a host's certificate.
pub(super) fn host_name(host: HostId) -> String {
    format!("{host}{SUFFIX}")
}

/// The host a certificate stands for: exactly one name, in exactly the form we issue.
///
/// The caller has verified the certificate against the cluster's authority; this only reads it.
pub fn host_id(certificate: &CertificateDer<'_>) -> Option<HostId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??.value;
    let [GeneralName::DNSName(name)] = names.general_names.as_slice() else { return None };
    let host: HostId = name.strip_suffix(SUFFIX)?.parse().ok()?;
    // UUIDs have several spellings; a certificate of ours has the canonical one.
    (host_name(host) == *name).then_some(host)
}
