//! What is wrong with the certificate of a server that an import asks.

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// What is wrong with it, if that is why the connection was not made. Never says what stands in the certificate.
pub(super) fn fault(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut causes = std::iter::successors(Some(error), |error| within(*error));
    let fault = causes.find_map(|cause| cause.downcast_ref::<rustls::Error>())?;
    match fault {
        rustls::Error::InvalidCertificate(fault) => Some(in_words(fault)),
        rustls::Error::NoCertificatesPresented => Some("it shows no certificate"),
        _ => None,
    }
}

/// The next error within this one. An [`io::Error`] that holds another one leaves that out of its sources.
fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

fn in_words(fault: &CertificateError) -> &'static str {
    use CertificateError as Fault;
    match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "its certificate has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => "its certificate is not valid yet",
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        Fault::UnknownIssuer => {
            "its certificate is by nobody who is trusted here; an operator can name an authority with --import-ca"
        }
        Fault::Revoked => "its certificate has been revoked",
        // An authority's own, which most of those are that somebody signed himself, is among these.
        _ => "its certificate is none that a server can be trusted by",
    }
}
