//! Statements made of the corpus' own: words put in other places, statements put into statements.
//!
//! `PGSLUICE_TEST_MUTATIONS` and `PGSLUICE_TEST_SEED` say how many, and which.

use pgsluice::route::lexer::{Lexer, TokenKind};

pub struct Mutations {
    pub seed: u64,
    pub count: usize,
    texts: Vec<String>,
    words: Vec<String>,
    state: u64,
}

impl Mutations {
    pub fn of(texts: Vec<String>) -> Mutations {
        let number = |name: &str, default: u64| {
            let given = std::env::var(name).ok();
            given.map_or(default, |it| it.parse().unwrap())
        };
        let seed = number("PGSLUICE_TEST_SEED", 1);
        let words = texts.iter().flat_map(|text| words(text)).collect();
        Mutations {
            seed,
            count: usize::try_from(number("PGSLUICE_TEST_MUTATIONS", 800)).unwrap(),
            texts,
            words,
            state: seed,
        }
    }

    pub fn next(&mut self) -> String {
        let one = self.text();
        match self.below(8) {
            0 => format!("select * from ({one}) s"),
            1 => format!("with c as ({one}) select * from c"),
            2 => format!("select exists ({one})"),
            3 => format!("explain (costs off) {one}"),
            4 => format!("copy ({one}) to stdout"),
            5 => {
                let other = self.text();
                format!("select 1 where exists ({one}) or exists ({other})")
            }
            _ => self.with_other_words(&one),
        }
    }

    fn text(&mut self) -> String {
        let at = self.below(self.texts.len());
        self.texts[at].trim_end_matches(';').to_owned()
    }

    /// One to three words replaced by words of other statements.
    fn with_other_words(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..=self.below(3) {
            let places: Vec<_> = Lexer::new(text.as_bytes(), true)
                .filter(|token| is_word(token.kind))
                .map(|token| token.start..token.end)
                .collect();
            if places.is_empty() {
                return text;
            }
            let place = places[self.below(places.len())].clone();
            let word = self.below(self.words.len());
            text.replace_range(place, &self.words[word]);
        }
        text
    }

    /// xorshift64*.
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap() % limit
    }
}

fn words(text: &str) -> Vec<String> {
    Lexer::new(text.as_bytes(), true)
        .filter(|token| is_word(token.kind))
        .map(|token| text[token.start..token.end].to_owned())
        .collect()
}

fn is_word(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Word | TokenKind::QuotedIdent | TokenKind::Op
    )
}
