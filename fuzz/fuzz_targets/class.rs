#![no_main]
libfuzzer_sys::fuzz_target!(|text: &[u8]| pgsluice::route::class::assert_classified(text));
