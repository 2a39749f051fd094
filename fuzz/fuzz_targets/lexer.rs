#![no_main]
libfuzzer_sys::fuzz_target!(|text: &[u8]| pgsluice::route::lexer::assert_tokens_cover(text));
