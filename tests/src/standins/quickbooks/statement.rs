//! The grammar of the query language.

use rust_decimal::Decimal;

use super::books::entity_named;
use super::fault::Fault;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(&'static str),
}

fn cannot_parse(what: impl AsRef<str>) -> Fault {
    Fault::new(
        "4000",
        "Error parsing query",
        format!("QueryParserError: {}", what.as_ref()),
    )
}

pub fn invalid(what: impl AsRef<str>) -> Fault {
    Fault::new(
        "4001",
        "Invalid query",
        format!("QueryValidationError: {}", what.as_ref()),
    )
}

fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&c) = rest.peek() {
        match c {
            c if c.is_whitespace() => {
                rest.next();
            }
            '\'' => {
                rest.next();
                found.push(Token::Text(quoted(&mut rest)?));
            }
            '<' | '>' => {
                rest.next();
                let wide = rest.next_if_eq(&'=').is_some();
                found.push(Token::Symbol(match (c, wide) {
                    ('<', true) => "<=",
                    ('<', false) => "<",
                    (_, true) => ">=",
                    (_, false) => ">",
                }));
            }
            '=' | '(' | ')' | ',' | '*' => {
                rest.next();
                found.push(Token::Symbol(match c {
                    '=' => "=",
                    '(' => "(",
                    ')' => ")",
                    ',' => ",",
                    _ => "*",
                }));
            }
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | ':') => {
                let mut word = String::new();
                while let Some(c) = rest
                    .next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | ':'))
                {
                    word.push(c);
                }
                found.push(Token::Word(word));
            }
            other => {
                return Err(cannot_parse(format!(
                    "Lexical error. Encountered: \"{other}\""
                )));
            }
        }
    }
    Ok(found)
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, Fault> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\'') => return Ok(text),
            Some('\\') => match rest.next() {
                Some(c) => text.push(c),
                None => break,
            },
            Some(c) => text.push(c),
            None => break,
        }
    }
    Err(cannot_parse("Encountered \"<EOF>\" inside a string"))
}

#[derive(Debug)]
pub struct Condition {
    pub field: String,
    pub test: Test,
}

#[derive(Debug)]
pub enum Test {
    Compare(&'static str, String),
    Like(String),
    In(Vec<String>),
}

#[derive(Debug)]
pub struct Query {
    /// None for every column; empty for a count.
    pub columns: Option<Vec<String>>,
    pub entity: &'static str,
    pub conditions: Vec<Condition>,
    pub order: Vec<(String, bool)>,
    pub start: usize,
    pub page: usize,
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn keyword(&mut self, word: &str) -> bool {
        self.tokens
            .next_if(
                |token| matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word)),
            )
            .is_some()
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Symbol(found) if *found == symbol))
            .is_some()
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn unexpected(&mut self) -> Fault {
        let found = match self.tokens.peek() {
            None => "<EOF>".to_owned(),
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Text(text)) => format!("'{text}'"),
            Some(Token::Symbol(symbol)) => (*symbol).to_owned(),
        };
        cannot_parse(format!("Encountered \" {found} \""))
    }

    fn word(&mut self) -> Result<String, Fault> {
        match self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(self.unexpected()),
        }
    }

    fn value(&mut self) -> Result<String, Fault> {
        match self
            .tokens
            .next_if(|token| matches!(token, Token::Word(_) | Token::Text(_)))
        {
            Some(Token::Text(text)) => Ok(text),
            Some(Token::Word(word))
                if word.eq_ignore_ascii_case("true")
                    || word.eq_ignore_ascii_case("false")
                    || word.parse::<Decimal>().is_ok() =>
            {
                Ok(word)
            }
            Some(Token::Word(word)) => Err(cannot_parse(format!("Encountered \" {word} \""))),
            _ => Err(self.unexpected()),
        }
    }

    fn number(&mut self, most: usize, name: &str) -> Result<usize, Fault> {
        let word = self.word()?;
        let number: usize = word
            .parse()
            .map_err(|_| cannot_parse(format!("Encountered \" {word} \"")))?;
        if number == 0 || number > most {
            return Err(invalid(format!(
                "value {number} of {name} is out of range. Max allowed value is {most}."
            )));
        }
        Ok(number)
    }

    fn list(&mut self) -> Result<Vec<String>, Fault> {
        self.expect("(")?;
        let mut values = vec![self.value()?];
        while self.symbol(",") {
            values.push(self.value()?);
        }
        self.expect(")")?;
        Ok(values)
    }

    fn condition(&mut self) -> Result<Condition, Fault> {
        let field = self.word()?;
        let test = if self.keyword("LIKE") {
            Test::Like(self.value()?)
        } else if self.keyword("IN") {
            Test::In(self.list()?)
        } else {
            let operator = ["=", "<=", ">=", "<", ">"]
                .into_iter()
                .find(|symbol| self.symbol(symbol))
                .ok_or_else(|| self.unexpected())?;
            Test::Compare(operator, self.value()?)
        };
        Ok(Condition { field, test })
    }

    fn columns(&mut self) -> Result<Option<Vec<String>>, Fault> {
        if self.symbol("*") {
            return Ok(None);
        }
        if self.keyword("COUNT") {
            self.expect("(")?;
            self.expect("*")?;
            self.expect(")")?;
            return Ok(Some(Vec::new()));
        }
        let mut columns = vec![self.word()?];
        while self.symbol(",") {
            columns.push(self.word()?);
        }
        Ok(Some(columns))
    }

    fn query(&mut self) -> Result<Query, Fault> {
        if !self.keyword("SELECT") {
            return Err(self.unexpected());
        }
        let columns = self.columns()?;
        if !self.keyword("FROM") {
            return Err(self.unexpected());
        }
        let table = self.word()?;
        let entity = entity_named(&table)
            .ok_or_else(|| invalid(format!("Invalid context declaration: {table}")))?;
        let mut query = Query {
            columns,
            entity,
            conditions: Vec::new(),
            order: Vec::new(),
            start: 1,
            page: DEFAULT_PAGE,
        };
        if self.keyword("WHERE") {
            query.conditions.push(self.condition()?);
            while self.keyword("AND") {
                query.conditions.push(self.condition()?);
            }
        }
        // One word in the reference; SDKs write two, and the service reads both.
        if self.keyword("ORDERBY") || (self.keyword("ORDER") && self.keyword("BY")) {
            loop {
                let field = self.word()?;
                let down = self.keyword("DESC");
                if !down {
                    self.keyword("ASC");
                }
                query.order.push((field, down));
                if !self.symbol(",") {
                    break;
                }
            }
        }
        if self.keyword("STARTPOSITION") {
            query.start = self.number(usize::MAX, "STARTPOSITION")?;
        }
        if self.keyword("MAXRESULTS") {
            query.page = self.number(LARGEST_PAGE, "MAXRESULTS")?;
        }
        match self.tokens.peek() {
            None => Ok(query),
            Some(_) => Err(self.unexpected()),
        }
    }
}

pub fn parse(statement: &str) -> Result<Query, Fault> {
    let tokens = tokens(statement)?;
    Parser {
        tokens: tokens.into_iter().peekable(),
    }
    .query()
}
