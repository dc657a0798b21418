//! Honest images of every format, the smallest there are, to be spoiled.

pub(in crate::image) mod qcow2;
pub(in crate::image) mod vdi;
pub(in crate::image) mod vhdx;
pub(in crate::image) mod vmdk;

pub(in crate::image) use qcow2::Qcow2;

/// The bytes of an image in the making; numbers are little-endian.
#[derive(Debug, Clone)]
pub(in crate::image) struct Image {
    pub(in crate::image) bytes: Vec<u8>,
}

impl Image {
    pub(in crate::image) fn zeros(length: u64) -> Self {
        Self { bytes: vec![0; length as usize] }
    }

    #[must_use]
    pub(in crate::image) fn put(mut self, at: u64, bytes: &[u8]) -> Self {
        self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        self
    }

    #[must_use]
    pub(in crate::image) fn u16(self, at: u64, value: u16) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    #[must_use]
    pub(in crate::image) fn u32(self, at: u64, value: u32) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    #[must_use]
    pub(in crate::image) fn u64(self, at: u64, value: u64) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// The first `length` bytes, or more zeros.
    pub(in crate::image) fn cut(mut self, length: u64) -> Vec<u8> {
        self.bytes.resize(length as usize, 0);
        self.bytes
    }
}
