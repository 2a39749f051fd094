#![no_main]
libfuzzer_sys::fuzz_target!(|text: &[u8]| pgsluice::route::fingerprint::assert_stable(text));
