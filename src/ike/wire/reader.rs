//! A cursor over bytes that somebody else wrote.

use crate::ike::reason::{BadMessage, Reason};

/// What is left to read. Every method fails instead of reading past the end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub fn taken(&self) -> usize {
        self.at
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.all.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let end = self.at.checked_add(count).ok_or(BadMessage::Overflow)?;
        let taken = self.all.get(self.at..end).ok_or(BadMessage::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.all.get(self.at..).unwrap_or_default();
        self.at = self.all.len();
        rest
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Reason> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Reason> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Reason> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn finish(&self) -> Result<(), Reason> {
        if self.is_empty() { Ok(()) } else { Err(BadMessage::LeftOver.into()) }
    }
}
