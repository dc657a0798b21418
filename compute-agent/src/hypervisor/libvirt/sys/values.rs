//! libvirt's lists of named values: what it measures of all domains, and what a guest's agent told it.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_uint};
use std::mem::ManuallyDrop;
use std::ptr;

use protocol::agent::MAX_GUEST_CHARS;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// Of a text no more is read, however long a guest makes it.
const MAX_TEXT_BYTES: usize = MAX_GUEST_CHARS * 4;

/// Named values, by libvirt's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Values(HashMap<String, Value>);

#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Value {
    Number(i128),
    Text(String),
}

impl Values {
    /// What is negative counts as zero.
    pub(in super::super) fn number(&self, name: &str) -> Option<u64> {
        self.signed(name).map(|number| u64::try_from(number.max(0)).unwrap_or(u64::MAX))
    }

    pub(in super::super) fn signed(&self, name: &str) -> Option<i128> {
        match self.0.get(name)? {
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
        }
    }

    pub(in super::super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Value::Text(text) => Some(text),
            Value::Number(_) => None,
        }
    }

    /// How many entries of this kind there are, `most` at most.
    pub(in super::super) fn count(&self, name: &str, most: usize) -> usize {
        self.number(name).map_or(0, |count| usize::try_from(count).unwrap_or(most).min(most))
    }

    #[cfg(test)]
    pub(in super::super) fn of(values: &[(&str, Value)]) -> Self {
        Self(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    /// # Safety
    /// `first` is the first of `count` parameters that libvirt has filled in.
    unsafe fn read(first: sys::virTypedParameterPtr, count: c_int) -> Self {
        let count = usize::try_from(count).unwrap_or(0);
        if first.is_null() {
            return Self::default();
        }
        // SAFETY: the caller says so.
        let parameters = unsafe { std::slice::from_raw_parts(first, count) };
        let read = parameters.iter().filter_map(|parameter| {
            // SAFETY: libvirt ends the name within its field, and the type says which of the values it is.
            unsafe {
                let name = CStr::from_ptr(parameter.field.as_ptr()).to_str().ok()?.to_owned();
                let value = match u32::try_from(parameter.type_).ok()? {
                    sys::VIR_TYPED_PARAM_INT => Value::Number(parameter.value.i.into()),
                    sys::VIR_TYPED_PARAM_UINT => Value::Number(parameter.value.ui.into()),
                    sys::VIR_TYPED_PARAM_LLONG => Value::Number(parameter.value.l.into()),
                    sys::VIR_TYPED_PARAM_ULLONG => Value::Number(parameter.value.ul.into()),
                    sys::VIR_TYPED_PARAM_STRING if !parameter.value.s.is_null() => {
                        let bytes = CStr::from_ptr(parameter.value.s).to_bytes();
                        let bytes = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
                        Value::Text(String::from_utf8_lossy(bytes).into_owned())
                    }
                    _ => return None,
                };
                Some((name, value))
            }
        });
        Self(read.collect())
    }
}

/// What is measured of one domain.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Record {
    pub(in super::super) name: String,
    pub(in super::super) uuid: Uuid,
    /// libvirt's number of a running domain.
    pub(in super::super) run: u32,
    pub(in super::super) values: Values,
}

/// Measures all running domains at once. Of one that is busy with something else, what can be had without waiting.
pub(in super::super) fn measure_all(connect: &Connect) -> Result<Vec<Record>, Error> {
    let what = sys::VIR_DOMAIN_STATS_CPU_TOTAL
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_INTERFACE
        | sys::VIR_DOMAIN_STATS_BLOCK;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is open during the call. The list that it makes is ours to free, and is freed once, below.
    let count = unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), what, &mut records, flags) };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    let mut found = Vec::with_capacity(count);
    for at in 0..count {
        // SAFETY: the list has so many records, each with a domain and its parameters, until it is freed. The domain
        // is lent: it is not dropped here.
        unsafe {
            let record = &**records.add(at);
            let domain = ManuallyDrop::new(Domain::from_ptr(record.dom));
            if let (Ok(name), Ok(uuid), Some(run)) = (domain.get_name(), domain.get_uuid(), domain.get_id()) {
                found.push(Record { name, uuid, run, values: Values::read(record.params, record.nparams) });
            }
        }
    }
    if !records.is_null() {
        // SAFETY: see above.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    Ok(found)
}

/// What the guest's agent says of these kinds of things; kinds that it does not know are left out.
pub(in super::super) fn guest_info(domain: &Domain, kinds: c_uint) -> Result<Values, Error> {
    let (mut first, mut count) = (ptr::null_mut(), 0);
    // SAFETY: the domain's handle is alive during the call. The list that it makes is ours to free, once.
    unsafe {
        if sys::virDomainGetGuestInfo(domain.as_ptr(), kinds, &mut first, &mut count, 0) != 0 {
            return Err(Error::last_error());
        }
        let values = Values::read(first, count);
        sys::virTypedParamsFree(first, count);
        Ok(values)
    }
}

/// What time the guest's agent says it is, in milliseconds since 1970.
pub(in super::super) fn guest_time_ms(domain: &Domain) -> Result<i64, Error> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    // SAFETY: the domain's handle and the numbers are alive during the call.
    let status = unsafe { sys::virDomainGetTime(domain.as_ptr(), &mut seconds, &mut nanoseconds, 0) };
    if status != 0 {
        return Err(Error::last_error());
    }
    Ok(seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `test:///default` has one running domain of its own.
    #[test]
    fn a_domain_of_the_test_driver_is_measured() {
        let connect = Connect::open(Some("test:///default")).unwrap();
        match measure_all(&connect) {
            Ok(records) => assert!(records.iter().any(|record| record.name == "test"), "{records:?}"),
            // Releases before 11 do not measure there.
            Err(error) => assert_eq!(error.code(), virt::error::ErrorNumber::NoSupport, "{error}"),
        }
    }
}
