//! `vectorizer-operator run` and `vectorizer-operator crd`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", vectorizer_operator::crd::yaml()?);
    Ok(())
}
