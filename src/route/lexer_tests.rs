//! The lexer against what PostgreSQL 15.20 and 18.4 themselves take for one token (told by the position and text of
//! their syntax errors), and its invariants over arbitrary bytes.

use proptest::prelude::*;

use super::lexer::{Lexer, TokenKind, TokenKind as K, assert_tokens_cover};

fn cut(text: &[u8], standard_conforming_strings: bool) -> Vec<(TokenKind, &[u8])> {
    Lexer::new(text, standard_conforming_strings)
        .map(|token| (token.kind, token.text(text)))
        .collect()
}

/// The text without white space and comments, one token a string, and the kinds.
fn check(text: &str, tokens: &[(TokenKind, &str)]) {
    let found = cut(text.as_bytes(), true);
    let wanted: Vec<_> = tokens
        .iter()
        .map(|(kind, t)| (*kind, t.as_bytes()))
        .collect();
    assert_eq!(found, wanted, "{text}");
}

#[test]
fn strings_end_where_postgresql_ends_them() {
    check("'a''b' 'c'", &[(K::Str, "'a''b'"), (K::Str, "'c'")]);
    check("'a\\' b", &[(K::Str, "'a\\'"), (K::Word, "b")]);
    check(
        "E'a\\'b''c' d",
        &[(K::EscapeStr, "E'a\\'b''c'"), (K::Word, "d")],
    );
    check("e'\\\\' x", &[(K::EscapeStr, "e'\\\\'"), (K::Word, "x")]);
    check("n'a' N'\\'", &[(K::Str, "n'a'"), (K::Str, "N'\\'")]);
    check(
        "U&'\\0061' u&\"a\"\"b\"",
        &[
            (K::UnicodeStr, "U&'\\0061'"),
            (K::UnicodeIdent, "u&\"a\"\"b\""),
        ],
    );
    check(
        "b'1' X'f''e'",
        &[(K::BitStr, "b'1'"), (K::BitStr, "X'f'"), (K::Str, "'e'")],
    );
    check(
        "nb'a' u & 'a'",
        &[
            (K::Word, "nb"),
            (K::Str, "'a'"),
            (K::Word, "u"),
            (K::Op, "&"),
            (K::Str, "'a'"),
        ],
    );
    check(
        "\"a\"\"b\".\"c\"",
        &[
            (K::QuotedIdent, "\"a\"\"b\""),
            (K::Dot, "."),
            (K::QuotedIdent, "\"c\""),
        ],
    );
}

#[test]
fn a_string_goes_on_behind_a_newline_in_the_same_manner() {
    check("'a'\n'b'", &[(K::Str, "'a'\n'b'")]);
    check("'a' 'b'", &[(K::Str, "'a'"), (K::Str, "'b'")]);
    check(
        "e'a' -- c\n \t'\\''",
        &[(K::EscapeStr, "e'a' -- c\n \t'\\''")],
    );
    check("'a'\n-- c\r'b'", &[(K::Str, "'a'\n-- c\r'b'")]);
    check("'a'\n/* c */'b'", &[(K::Str, "'a'"), (K::Str, "'b'")]);
    check("'a'\n-- c", &[(K::Str, "'a'")]);
    check("x'a'\n'b'", &[(K::BitStr, "x'a'\n'b'")]);
    check("'a'\n e'b'", &[(K::Str, "'a'"), (K::EscapeStr, "e'b'")]);
}

#[test]
fn backslashes_escape_where_the_server_says_so() {
    let off = cut(b"'a\\'b' x", false);
    assert_eq!(off, [(K::Str, &b"'a\\'b'"[..]), (K::Word, b"x")]);
    let off = cut(b"N'\\'' U&'\\' b'\\'", false);
    assert_eq!(
        off,
        [
            (K::Str, &b"N'\\''"[..]),
            (K::UnicodeStr, b"U&'\\'"),
            (K::BitStr, b"b'\\'")
        ]
    );
    let off = cut(b"b'1''\\''", false);
    assert_eq!(off, [(K::BitStr, &b"b'1'"[..]), (K::Str, b"'\\''")]);
}

#[test]
fn dollar_quotes_end_at_their_own_tag() {
    check("$$a$b$$ c", &[(K::DollarStr, "$$a$b$$"), (K::Word, "c")]);
    check("$a$ $b$ $$ $a$", &[(K::DollarStr, "$a$ $b$ $$ $a$")]);
    check("$a$ $A$ $a$", &[(K::DollarStr, "$a$ $A$ $a$")]);
    check("$a$$a$a$a$", &[(K::DollarStr, "$a$$a$"), (K::Word, "a$a$")]);
    check("a$$b$$", &[(K::Word, "a$$b$$")]);
    check("$1$$x$$", &[(K::Param, "$1"), (K::DollarStr, "$$x$$")]);
    check("$a b$", &[(K::Junk, "$"), (K::Word, "a"), (K::Word, "b$")]);
    check("$\u{e9}$'$\u{e9}$", &[(K::DollarStr, "$\u{e9}$'$\u{e9}$")]);
}

#[test]
fn comments_nest_and_lines_end() {
    check("a /* /* b */ */ c", &[(K::Word, "a"), (K::Word, "c")]);
    check(
        "a --b\nc --d\re",
        &[(K::Word, "a"), (K::Word, "c"), (K::Word, "e")],
    );
    check("/*/ a /**/ */ b", &[(K::Word, "b")]);
    check("/***/a/*//**/*/b", &[(K::Word, "a"), (K::Word, "b")]);
    check(
        "a /* /* */",
        &[(K::Word, "a"), (K::Unterminated, "/* /* */")],
    );
}

#[test]
fn operators_stop_at_comments_and_leave_signs_alone() {
    check(
        "1+-2",
        &[
            (K::Number, "1"),
            (K::Op, "+"),
            (K::Op, "-"),
            (K::Number, "2"),
        ],
    );
    check(
        "a<-b",
        &[(K::Word, "a"), (K::Op, "<"), (K::Op, "-"), (K::Word, "b")],
    );
    check("a@-b", &[(K::Word, "a"), (K::Op, "@-"), (K::Word, "b")]);
    check(
        "a<=+-b",
        &[
            (K::Word, "a"),
            (K::Op, "<="),
            (K::Op, "+"),
            (K::Op, "-"),
            (K::Word, "b"),
        ],
    );
    check("a*/*b*/c", &[(K::Word, "a"), (K::Op, "*"), (K::Word, "c")]);
    check("a@--b", &[(K::Word, "a"), (K::Op, "@")]);
    check("+-+<", &[(K::Op, "+-+<")]);
    check("a=>b", &[(K::Word, "a"), (K::Op, "=>"), (K::Word, "b")]);
    check(
        "a::b:=c..d:e",
        &[
            (K::Word, "a"),
            (K::Typecast, "::"),
            (K::Word, "b"),
            (K::ColonEquals, ":="),
            (K::Word, "c"),
            (K::DotDot, ".."),
            (K::Word, "d"),
            (K::Colon, ":"),
            (K::Word, "e"),
        ],
    );
    check(
        "(a,[b]);",
        &[
            (K::OpenParen, "("),
            (K::Word, "a"),
            (K::Comma, ","),
            (K::OpenBracket, "["),
            (K::Word, "b"),
            (K::CloseBracket, "]"),
            (K::CloseParen, ")"),
            (K::Semicolon, ";"),
        ],
    );
}

#[test]
fn numbers_of_every_version_are_one_token() {
    for number in [
        "1",
        "1.5",
        ".5",
        "1.",
        "1e5",
        "1.5E-3",
        ".5e+3",
        "0x1F",
        "0X_f",
        "0o17",
        "0b1_0",
        "1_000.0_1",
        "1_0e1_0",
    ] {
        check(number, &[(K::Number, number)]);
    }
    check(
        "1..2",
        &[(K::Number, "1"), (K::DotDot, ".."), (K::Number, "2")],
    );
    check("1e", &[(K::Number, "1"), (K::Word, "e")]);
    check("0b2", &[(K::Number, "0"), (K::Word, "b2")]);
    check("1__0", &[(K::Number, "1"), (K::Word, "__0")]);
    check("a.5", &[(K::Word, "a"), (K::Number, ".5")]);
    check("$12", &[(K::Param, "$12")]);
}

#[test]
fn what_has_no_end_goes_to_the_end() {
    for text in [
        "'a", "e'a\\'", "\"a\"\"", "u&'a", "U&\"a", "b'1", "$a$ $b$", "/* /* */", "'a'\n'b",
    ] {
        check(text, &[(K::Unterminated, text)]);
    }
}

/// Bytes that make up the odd cases more often than chance would.
fn odd_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|b| vec![b]),
        prop::sample::select(vec![
            "'", "''", "\"", "\\", "$", "$$", "$a$", "e'", "b'", "u&'", "u&\"", "--", "/*", "*/",
            "\n", " ", "a", "1", "_", ".", "e5", "0x", "+", "-", "<", "@", ":", ";", "(",
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn tokens_cover_any_bytes_in_order(text in odd_text()) {
        assert_tokens_cover(&text);
    }

    #[test]
    fn effects_of_any_bytes_come_without_a_panic(text in odd_text()) {
        super::effects::assert_readable(&text);
    }
}
