//! The differences between processors: a handful of operations, and functions that are
//! compiled for one kind of processor.

#![allow(unsafe_code)]

/// A kind of processor. A value of such a type proves that this processor is of the kind.
pub(crate) trait Arch: Copy {
    /// The lowest `count` bits. From a count of 64 on the result is arbitrary, but the call
    /// must return.
    fn low(self, bits: u64, count: u32) -> u64;
    /// For each length from 1 on, which of the bytes are that length.
    fn masks<const W: usize>(self, lengths: &[[u8; 64]; W]) -> [[u64; W]; 16];
    /// Byte i of the result is byte `at[i]` of `bytes`; each is below 16.
    fn shuffle(self, bytes: [u8; 16], at: [u8; 16]) -> [u8; 16];
    /// Runs the work, compiled for this kind, as a function of its own, which is seldom
    /// called.
    fn call<W: Work>(self, work: W) -> W::Output;
}

/// The work that [`Arch::call`] runs.
pub(crate) trait Work {
    /// Its result.
    type Output;
    /// Must always be inlined, because it is compiled once for each kind of processor.
    fn work<A: Arch>(self, arch: A) -> Self::Output;
}

/// Any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Arch for Portable {
    #[inline(always)]
    fn low(self, bits: u64, count: u32) -> u64 {
        bits & !(u64::MAX << (count & 63))
    }

    #[inline(always)]
    fn masks<const W: usize>(self, lengths: &[[u8; 64]; W]) -> [[u64; W]; 16] {
        let mut masks = [[0; W]; 16];
        for (word, lengths) in lengths.iter().enumerate() {
            for (bit, &length) in lengths.iter().enumerate() {
                masks[usize::from(length & 15)][word] |= 1 << bit;
            }
        }
        masks
    }

    #[inline(always)]
    fn shuffle(self, bytes: [u8; 16], at: [u8; 16]) -> [u8; 16] {
        at.map(|at| bytes[usize::from(at & 15)])
    }

    #[inline(never)]
    fn call<W: Work>(self, work: W) -> W::Output {
        work.work(self)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Bmi2;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Arch, Work};

    /// A processor with BMI2 and AVX2. Only [`Bmi2::detect`] makes one.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Bmi2(());

    impl Bmi2 {
        pub(crate) fn detect() -> Option<Self> {
            let there = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            there.then_some(Bmi2(()))
        }
    }

    impl Arch for Bmi2 {
        #[inline(always)]
        fn low(self, bits: u64, count: u32) -> u64 {
            // SAFETY: a `Bmi2` proves that the processor has these instructions.
            unsafe { _bzhi_u64(bits, count) }
        }

        #[inline(always)]
        fn masks<const W: usize>(self, lengths: &[[u8; 64]; W]) -> [[u64; W]; 16] {
            // SAFETY: a `Bmi2` proves that the processor has these instructions.
            unsafe { masks(lengths) }
        }

        #[inline(always)]
        fn shuffle(self, bytes: [u8; 16], at: [u8; 16]) -> [u8; 16] {
            // SAFETY: a `Bmi2` proves that the processor has these instructions; the types
            // are of one size, and any bytes are valid for each.
            unsafe {
                let vector = |bytes| std::mem::transmute::<[u8; 16], __m128i>(bytes);
                std::mem::transmute(_mm_shuffle_epi8(vector(bytes), vector(at)))
            }
        }

        #[inline(always)]
        fn call<W: Work>(self, work: W) -> W::Output {
            // SAFETY: a `Bmi2` proves that the processor has these instructions.
            unsafe { call(self, work) }
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline(never)]
    fn call<W: Work>(arch: Bmi2, work: W) -> W::Output {
        work.work(arch)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn masks<const W: usize>(lengths: &[[u8; 64]; W]) -> [[u64; W]; 16] {
        let mut masks = [[0; W]; 16];
        for (word, lengths) in lengths.iter().enumerate() {
            // SAFETY: 64 bytes are two vectors of 32, and any bytes are valid for those.
            let [low, high]: [__m256i; 2] = unsafe { std::mem::transmute(*lengths) };
            for (length, masks) in masks.iter_mut().enumerate().skip(1) {
                let length = _mm256_set1_epi8(length as i8);
                let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, length)) as u32;
                let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, length)) as u32;
                masks[word] = u64::from(low) | u64::from(high) << 32;
            }
        }
        masks
    }
}
