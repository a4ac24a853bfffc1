//! Runs the SQL statements of a file in a MySQL database: `run-sql URL FILE`.

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, url, file] = &args[..] else {
        eprintln!("usage: run-sql URL FILE");
        std::process::exit(2);
    };
    match std::fs::read_to_string(file) {
        Ok(statements) => harness::server::run_sql(url, &statements),
        Err(error) => {
            eprintln!("{file}: {error}");
            std::process::exit(1);
        }
    }
}
