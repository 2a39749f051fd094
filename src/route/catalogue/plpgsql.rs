//! Cuts a body in PL/pgSQL into the SQL that it runs: statements and expressions.
//!
//! Follows the server's `pl_gram.y` in what ends a piece (the first `;`, THEN or LOOP outside parentheses), so that the
//! pieces are those that PL/pgSQL hands to the parser. A body that PL/pgSQL would refuse does nothing; one that is not
//! understood here, or runs SQL that it puts together, gives None.

use crate::route::{
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
};

/// A part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::route) enum Piece<'t> {
    /// As behind SELECT.
    Expression(&'t [u8]),
    /// A whole statement of SQL.
    Statement(&'t [u8]),
}

/// Hands every piece of `body` to `each`. None: not understood, or dynamic.
pub(in crate::route) fn split<'t>(
    body: &'t [u8],
    standard_conforming_strings: bool,
    each: &mut dyn FnMut(Piece<'t>),
) -> Option<()> {
    let mut splitter = Splitter {
        text: body,
        lexer: Lexer::new(body, standard_conforming_strings),
        each,
    };
    splitter.directives()?;
    while let Some(token) = splitter.next() {
        splitter.statement(token)?;
    }
    Some(())
}

struct Splitter<'t, 'e> {
    text: &'t [u8],
    lexer: Lexer<'t>,
    each: &'e mut dyn FnMut(Piece<'t>),
}

/// Words that begin something of PL/pgSQL's own. Inside a piece they would show that it was cut wrongly.
const NEVER_INSIDE: [&[u8]; 9] = [
    b"perform", b"elsif", b"elseif", b"while", b"loop", b"foreach", b"raise", b"execute", b"atomic",
];

impl<'t> Splitter<'t, '_> {
    fn next(&mut self) -> Option<Token> {
        self.lexer.next_token()
    }

    fn peek(&self) -> Option<Token> {
        let mut ahead = self.lexer;
        ahead.next_token()
    }

    fn is(&self, token: Token, word: &str) -> bool {
        token.kind == TokenKind::Word && token.text(self.text).eq_ignore_ascii_case(word.as_bytes())
    }

    fn is_one_of(&self, token: Token, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(token, word))
    }

    fn is_op(&self, token: Token, op: &[u8]) -> bool {
        token.kind == TokenKind::Op && token.text(self.text) == op
    }

    /// Takes the next token if it is this word.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| self.is(token, word));
        if found {
            self.next();
        }
        found
    }

    /// `#variable_conflict use_column` and the like, at the beginning.
    fn directives(&mut self) -> Option<()> {
        while self.peek().is_some_and(|token| self.is_op(token, b"#")) {
            self.next();
            for _ in 0..2 {
                self.next().filter(|t| t.kind == TokenKind::Word)?;
            }
        }
        Some(())
    }

    /// What begins with `token`.
    fn statement(&mut self, token: Token) -> Option<()> {
        match token.kind {
            TokenKind::Semicolon => Some(()),
            TokenKind::Op => self.label(token),
            TokenKind::Word | TokenKind::QuotedIdent if self.is_assignment() => {
                self.expression_from(token.start, ";")
            }
            TokenKind::Word => self.word(token),
            _ => None,
        }
    }

    fn label(&mut self, token: Token) -> Option<()> {
        let name = self.next()?;
        let end = self.next()?;
        let named = matches!(name.kind, TokenKind::Word | TokenKind::QuotedIdent);
        (self.is_op(token, b"<<") && named && self.is_op(end, b">>")).then_some(())
    }

    /// Whether the word before was a variable.
    fn is_assignment(&self) -> bool {
        self.peek().is_some_and(|token| {
            matches!(
                token.kind,
                TokenKind::ColonEquals | TokenKind::OpenBracket | TokenKind::Dot
            ) || self.is_op(token, b"=")
        })
    }

    fn word(&mut self, token: Token) -> Option<()> {
        let mut folded = [0; 12];
        let written = token.text(self.text);
        let word = match folded.get_mut(..written.len()) {
            Some(folded) => {
                folded.copy_from_slice(written);
                folded.make_ascii_lowercase();
                &*folded
            }
            None => written,
        };
        match word {
            b"begin" | b"loop" | b"else" | b"exception" => Some(()),
            b"null" => self
                .peek()
                .filter(|t| t.kind == TokenKind::Semicolon)
                .map(|_| ()),
            b"declare" => self.declarations(),
            b"end" => self.end(),
            b"if" | b"elsif" | b"elseif" | b"when" => self.expression_until("then"),
            b"case" => {
                self.expression_until("when")?;
                self.expression_until("then")
            }
            b"while" => self.expression_until("loop"),
            b"for" => self.for_loop(),
            b"foreach" => self.foreach(),
            b"return" => self.returns(),
            b"exit" | b"continue" | b"raise" | b"assert" | b"perform" | b"get" | b"close" => {
                self.expression()
            }
            b"fetch" | b"move" => self.fetch(),
            b"open" => self.open(),
            b"execute" => None,
            _ => self.sql(token),
        }
    }

    /// `END IF;`, `END LOOP label;`, and the last END, which needs no semicolon.
    fn end(&mut self) -> Option<()> {
        while let Some(token) = self.next() {
            match token.kind {
                TokenKind::Semicolon => return Some(()),
                TokenKind::Word | TokenKind::QuotedIdent => {}
                _ => return None,
            }
        }
        Some(())
    }

    /// Up to BEGIN.
    fn declarations(&mut self) -> Option<()> {
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::Word if self.is(token, "begin") => return Some(()),
                TokenKind::Word if self.is(token, "declare") => {}
                TokenKind::Word | TokenKind::QuotedIdent => self.declaration()?,
                _ => return None,
            }
        }
    }

    /// Behind its name: the type holds nothing that is run, a default or a cursor's query does.
    fn declaration(&mut self) -> Option<()> {
        let mut depth = 0usize;
        let mut is_cursor = false;
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::OpenParen | TokenKind::OpenBracket => depth += 1,
                TokenKind::CloseParen | TokenKind::CloseBracket => depth = depth.checked_sub(1)?,
                TokenKind::Unterminated | TokenKind::Junk | TokenKind::UnicodeIdent => return None,
                _ if depth > 0 => {}
                TokenKind::Semicolon => return Some(()),
                TokenKind::ColonEquals => return self.expression(),
                TokenKind::Op if self.is_op(token, b"=") => return self.expression(),
                TokenKind::Word if self.is(token, "default") => return self.expression(),
                TokenKind::Word if self.is(token, "cursor") => is_cursor = true,
                TokenKind::Word if is_cursor && self.is_one_of(token, &["for", "is"]) => {
                    return self.query(";");
                }
                _ => {}
            }
        }
    }

    fn for_loop(&mut self) -> Option<()> {
        self.targets_until_in()?;
        self.take("reverse");
        let first = self.peek()?;
        let keyword = Keyword::of(first.text(self.text));
        use Keyword as K;
        let is_query = first.kind == TokenKind::OpenParen
            || matches!(
                keyword,
                Some(
                    K::Select
                        | K::With
                        | K::Values
                        | K::Table
                        | K::Insert
                        | K::Update
                        | K::Delete
                        | K::Merge
                        | K::Explain
                        | K::Show
                )
            );
        match is_query {
            true => self.query("loop"),
            // A range, or a cursor.
            false => self.expression_until("loop"),
        }
    }

    fn foreach(&mut self) -> Option<()> {
        self.targets_until_in()?;
        self.take("array").then_some(())?;
        self.expression_until("loop")
    }

    fn targets_until_in(&mut self) -> Option<()> {
        loop {
            let token = self.next()?;
            match token.kind {
                TokenKind::Word if self.is(token, "in") => return Some(()),
                TokenKind::Word
                | TokenKind::QuotedIdent
                | TokenKind::Dot
                | TokenKind::Comma
                | TokenKind::Number => {}
                _ => return None,
            }
        }
    }

    fn returns(&mut self) -> Option<()> {
        if self.take("query") {
            return self.query(";");
        }
        self.take("next");
        self.expression()
    }

    /// `FETCH … INTO targets;`
    fn fetch(&mut self) -> Option<()> {
        let start = self.peek()?.start;
        let (piece, stop) = self.cut(start, None, End::Into)?;
        (self.each)(Piece::Expression(piece));
        if stop == Stop::Into {
            self.skip_targets()?;
            self.next().filter(|t| t.kind == TokenKind::Semicolon)?;
        }
        Some(())
    }

    /// `OPEN c;`, `OPEN c (arguments);`, `OPEN c NO SCROLL FOR query;`
    fn open(&mut self) -> Option<()> {
        self.next()
            .filter(|t| matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdent))?;
        loop {
            let token = self.peek()?;
            match token.kind {
                TokenKind::Word if self.is(token, "for") => {
                    self.next();
                    return self.query(";");
                }
                TokenKind::Word if self.is_one_of(token, &["no", "scroll"]) => {
                    self.next();
                }
                TokenKind::OpenParen | TokenKind::Semicolon => return self.expression(),
                _ => return None,
            }
        }
    }

    fn expression(&mut self) -> Option<()> {
        self.expression_until(";")
    }

    fn expression_until(&mut self, word: &'static str) -> Option<()> {
        let start = self.peek()?.start;
        self.expression_from(start, word)
    }

    fn expression_from(&mut self, start: usize, until: &'static str) -> Option<()> {
        let (piece, _) = self.cut(start, None, End::At(until))?;
        (self.each)(Piece::Expression(piece));
        Some(())
    }

    /// A query whose rows PL/pgSQL takes itself.
    fn query(&mut self, until: &'static str) -> Option<()> {
        let start = self.peek()?.start;
        let (piece, _) = self.cut(start, None, End::At(until))?;
        (self.each)(Piece::Statement(piece));
        Some(())
    }

    /// A statement of SQL that begins with `first`. PL/pgSQL cuts its INTO and the targets out.
    fn sql(&mut self, first: Token) -> Option<()> {
        let (piece, stop) = self.cut(first.start, Some(first), End::Into)?;
        (self.each)(Piece::Statement(piece));
        if stop == Stop::There {
            return Some(());
        }
        self.take("strict");
        self.skip_targets()?;
        match self.peek()?.kind {
            // It would be joined to the name before INTO.
            TokenKind::OpenParen | TokenKind::Dot => None,
            _ => self.expression(),
        }
    }

    /// `a.b, c`
    fn skip_targets(&mut self) -> Option<()> {
        loop {
            self.next()
                .filter(|t| matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdent))?;
            match self.peek()?.kind {
                TokenKind::Dot | TokenKind::Comma => {
                    self.next();
                }
                _ => return Some(()),
            }
        }
    }

    /// The text from `start`, behind `before`, up to what ends it, which is taken. None: it has no end, or holds what no
    /// such text can.
    fn cut(
        &mut self,
        start: usize,
        mut before: Option<Token>,
        end: End,
    ) -> Option<(&'t [u8], Stop)> {
        let mut depth = 0usize;
        loop {
            let token = self.next()?;
            let stop = match token.kind {
                TokenKind::OpenParen | TokenKind::OpenBracket => {
                    depth += 1;
                    None
                }
                TokenKind::CloseParen | TokenKind::CloseBracket => {
                    depth = depth.checked_sub(1)?;
                    None
                }
                TokenKind::Unterminated | TokenKind::Junk | TokenKind::UnicodeIdent => return None,
                TokenKind::Semicolon if depth > 0 => return None,
                TokenKind::Semicolon => Some(end.at_semicolon()?),
                TokenKind::Word => self.stop(token, before, depth, end)?,
                _ => None,
            };
            if let Some(stop) = stop {
                return Some((&self.text[start..token.start], stop));
            }
            before = Some(token);
        }
    }

    /// Whether a word ends the piece. The outer None: it cannot stand there.
    fn stop(
        &self,
        token: Token,
        before: Option<Token>,
        depth: usize,
        end: End,
    ) -> Option<Option<Stop>> {
        if before.is_some_and(|t| t.kind == TokenKind::Dot) {
            return Some(None);
        }
        if matches!(end, End::At(word) if depth == 0 && self.is(token, word)) {
            return Some(Some(Stop::There));
        }
        if self.is(token, "into") {
            let inserts = before.is_some_and(|t| self.is_one_of(t, &["insert", "merge"]));
            return match end {
                _ if inserts => Some(None),
                End::Into if depth == 0 => Some(Some(Stop::Into)),
                _ => None,
            };
        }
        let word = token.text(self.text);
        let wrong = NEVER_INSIDE.iter().any(|it| it.eq_ignore_ascii_case(word));
        (!wrong).then_some(None)
    }
}

/// What ends a piece.
#[derive(Clone, Copy)]
enum End {
    /// A word, or `;`.
    At(&'static str),
    /// `;`, or the INTO that PL/pgSQL takes for itself.
    Into,
}

impl End {
    /// None: a semicolon comes too early.
    fn at_semicolon(self) -> Option<Stop> {
        match self {
            End::At(";") | End::Into => Some(Stop::There),
            End::At(_) => None,
        }
    }
}

/// Where a piece ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    There,
    Into,
}
