//! The authority signs what it should and nothing else. That rustls accepts it is tested in `net`.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use time::macros::datetime;
use uuid::Uuid;
use x509_parser::parse_x509_certificate;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

fn ca() -> Ca {
    let pem = Ca::generate(NOW).unwrap();
    Ca::load(&pem.certificate, &pem.key).unwrap()
}

fn csr(names: &[&str], key: &KeyPair) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap().serialize_request(key).unwrap().pem().unwrap()
}

fn host() -> HostId {
    HostId::from_uuid(Uuid::now_v7())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_fingerprint_is_of_the_stored_certificate_and_survives_a_reload() {
    let pem = Ca::generate(NOW).unwrap();
    let expected: [u8; 32] = Sha256Hasher::digest(der(&pem.certificate)).into();
    for _ in 0..2 {
        let ca = Ca::load(&pem.certificate, &pem.key).unwrap();
        assert_eq!(ca.fingerprint(), Sha256::from_bytes(expected));
    }
}

#[test]
fn a_foreign_key_is_refused() {
    let (one, other) = (Ca::generate(NOW).unwrap(), Ca::generate(NOW).unwrap());
    assert!(matches!(Ca::load(&one.certificate, &other.key), Err(PkiError::KeyMismatch)));
    assert!(matches!(Ca::load("nonsense", &other.key), Err(PkiError::LoadCertificate(_))));
    assert!(matches!(Ca::load(&one.certificate, "nonsense"), Err(PkiError::LoadKey(_))));
}

#[test]
fn a_request_for_another_identity_gets_only_its_own() {
    let (ca, own, victim) = (ca(), host(), host());
    let key = KeyPair::generate().unwrap();
    let request = csr(&[&peer::host_name(victim), SERVER_NAME], &key);
    let certificate = der(&ca.issue_host(own, &request, NOW).unwrap());

    assert_eq!(peer::host_id(&certificate), Some(own));
    let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 1);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
}

#[test]
fn a_host_certificate_lives_thirty_days_and_has_its_own_serial() {
    let (ca, key) = (ca(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let request = csr(&[], &key);
    let one = der(&ca.issue_host(host(), &request, NOW).unwrap());
    let two = der(&ca.issue_host(host(), &request, NOW).unwrap());
    let (_, one) = parse_x509_certificate(&one).unwrap();
    let (_, two) = parse_x509_certificate(&two).unwrap();
    let validity = one.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 30 * 86_400);
    assert!(validity.not_before.timestamp() < NOW.unix_timestamp());
    assert!(validity.not_after.timestamp() <= (NOW + LEAF_LIFETIME).unix_timestamp());
    assert_eq!(validity.not_after.timestamp(), leaf_ends_at(NOW).unix_timestamp());
    assert_ne!(one.raw_serial(), two.raw_serial());
    assert_eq!(one.raw_serial().len(), 16);
}

#[test]
fn hostile_requests_are_refused() {
    let ca = ca();
    let good = csr(&[], &KeyPair::generate().unwrap());
    let mut forged = pem_body(&good);
    // The last byte belongs to the signature.
    *forged.last_mut().unwrap() ^= 1;
    let p384 = csr(&[], &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    for bad in [
        String::new(),
        "x".repeat(9000),
        good.replace("REQUEST", "NONSENSE").replace('M', "-"),
        to_pem(&forged),
        p384,
    ] {
        let answer = ca.issue_host(host(), &bad, NOW);
        assert!(matches!(answer, Err(PkiError::Request(_))), "{bad}: {answer:?}");
    }
    assert!(ca.issue_host(host(), &good, NOW).is_ok());
}

#[test]
fn only_the_canonical_name_of_a_host_is_a_host() {
    let id = host();
    let key = KeyPair::generate().unwrap();
    let with_names =
        |names: Vec<String>| CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().clone();
    assert_eq!(peer::host_id(&with_names(vec![peer::host_name(id)])), Some(id));
    for names in [
        vec![],
        vec![SERVER_NAME.to_owned()],
        vec![format!("{}.host.cumulo.internal", id.as_uuid().simple())],
        vec![peer::host_name(id).to_uppercase()],
        vec![format!("{}.example.org", peer::host_name(id))],
        vec![peer::host_name(id), peer::host_name(host())],
    ] {
        assert_eq!(peer::host_id(&with_names(names.clone())), None, "{names:?}");
    }
    assert_eq!(peer::host_id(&CertificateDer::from(vec![0; 10])), None);
}

fn pem_body(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}
