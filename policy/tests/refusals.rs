//! Documents that are not accepted, and where the finding points.

use policy::{Document, Key, KeyType, MAX_STATEMENTS, MAX_STEPS, Vocabulary};
use serde_json::{Value, json};

const VOCABULARY: Vocabulary = Vocabulary {
    actions: &["compute:CreateInstance", "compute:DeleteInstance", "image:GetImage"],
    resources: &[("compute", "instance"), ("image", "image")],
    keys: &[
        Key { name: "cumulo:SourceIp", value: KeyType::Ip, multivalued: false },
        Key { name: "cumulo:CurrentTime", value: KeyType::Date, multivalued: false },
        Key { name: "cumulo:PrincipalName", value: KeyType::String, multivalued: false },
        Key { name: "cumulo:LabelKeys", value: KeyType::String, multivalued: true },
        Key { name: "cumulo:ResourceLabel/", value: KeyType::String, multivalued: false },
        Key { name: "compute:Vcpus", value: KeyType::Numeric, multivalued: false },
    ],
};

/// A statement with these elements in place of its own.
#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn with(changes: Value) -> Value {
    let mut statement = json!({"Sid": "One", "Effect": "Allow", "Action": "*", "Resource": "*"});
    for (element, value) in changes.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(statement.as_object_mut().map(|statement| statement.remove(element))),
            value => statement[element] = value.clone(),
        }
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

#[track_caller]
fn refused(document: &Value, pointer: &str, code: &str, words: &str) {
    let findings = Document::parse(document, &VOCABULARY).expect_err(&document.to_string());
    assert!(
        findings.iter().any(|f| f.pointer == pointer && f.code == code && f.message.contains(words)),
        "{document}: {findings:#?}"
    );
}

#[test]
fn each_finding_names_statement_and_field() {
    let cases = [
        (json!([]), "", "invalid", "JSON object"),
        (json!({"Statement": []}), "/Version", "required", "2012-10-17"),
        (json!({"Version": "2008-10-17", "Statement": []}), "/Version", "invalid", "2012-10-17"),
        (json!({"Version": "2012-10-17"}), "/Statement", "required", "at least one"),
        (json!({"Version": "2012-10-17", "Statement": []}), "/Statement", "out_of_range", "from 1"),
        (json!({"Version": "2012-10-17", "Statement": 7}), "/Statement", "invalid", "list"),
        (json!({"Version": "2012-10-17", "Statement": [7]}), "/Statement/0", "invalid", "number 1"),
        (json!({"Version": "2012-10-17", "Statements": []}), "/Statements", "unknown_field", "Statement?"),
        (with(json!({"Efect": "Allow"})), "/Statement/0/Efect", "unknown_field", "did you mean Effect?"),
        (with(json!({"Effect": "allow"})), "/Statement/0/Effect", "invalid", "statement One"),
        (with(json!({"Effect": null})), "/Statement/0/Effect", "required", "statement One"),
        (with(json!({"Principal": "*"})), "/Statement/0/Principal", "unknown_field", "attaching"),
        (with(json!({"Sid": "a b"})), "/Statement/0/Sid", "invalid", "letters and digits"),
        (with(json!({"Action": null})), "/Statement/0/Action", "required", "NotAction"),
        (with(json!({"NotAction": "*"})), "/Statement/0/NotAction", "conflict", "not both"),
        (with(json!({"Action": []})), "/Statement/0/Action", "out_of_range", "from 1"),
        (with(json!({"Action": ["*", 7]})), "/Statement/0/Action/1", "invalid", "text"),
        (
            with(json!({"Action": "compute:createinstanc"})),
            "/Statement/0/Action",
            "unknown_action",
            "compute:CreateInstance?",
        ),
        (with(json!({"Action": "s3:*"})), "/Statement/0/Action", "unknown_action", "s3:*"),
        (with(json!({"Action": "*:Get*"})), "/Statement/0/Action", "invalid", "service:Verb"),
        (with(json!({"Action": "CreateInstance"})), "/Statement/0/Action", "invalid", "service:Verb"),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop"})),
            "/Statement/0/Resource",
            "invalid",
            "crn:cumulo:",
        ),
        (with(json!({"Resource": "arn:aws:s3:::x"})), "/Statement/0/Resource", "invalid", "crn:cumulo:"),
        (
            with(json!({"Resource": "crn:cumulo:comp*:shop:instance/x"})),
            "/Statement/0/Resource",
            "unknown_service",
            "nothing between",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instanc/x"})),
            "/Statement/0/Resource",
            "unknown_type",
            "instance",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance"})),
            "/Statement/0/Resource",
            "unknown_type",
            "<type>",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:image/x"})),
            "/Statement/0/Resource",
            "unknown_type",
            "instance",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/${cumulo:Principalname}"})),
            "/Statement/0/Resource",
            "unknown_variable",
            "${cumulo:PrincipalName}",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/${x"})),
            "/Statement/0/Resource",
            "invalid_variable",
            "closed",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/${cumulo:SourceIp}"})),
            "/Statement/0/Resource",
            "unknown_variable",
            "one string",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/${cumulo:LabelKeys}"})),
            "/Statement/0/Resource",
            "unknown_variable",
            "one string",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/"})),
            "/Statement/0/Resource",
            "invalid",
            "after the slash",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop:instance/web:db"})),
            "/Statement/0/Resource",
            "invalid",
            "colons",
        ),
        (
            with(json!({"Resource": "crn:cumulo:compute:shop/web:instance/*"})),
            "/Statement/0/Resource",
            "invalid",
            "fourth part",
        ),
        (
            with(json!({"Condition": {"DateGreaterThan": {"cumulo:CurrentTime": "2026"}}})),
            "/Statement/0/Condition/DateGreaterThan/cumulo:CurrentTime",
            "invalid_value",
            "nine digits",
        ),
        (
            with(json!({"Condition": {"DateGreaterThan": {"cumulo:CurrentTime": 20_260_131}}})),
            "/Statement/0/Condition/DateGreaterThan/cumulo:CurrentTime",
            "invalid_value",
            "nine digits",
        ),
        (with(json!({"Condition": {}})), "/Statement/0/Condition", "invalid", "operator"),
        (
            with(json!({"Condition": {"StringEqual": {}}})),
            "/Statement/0/Condition/StringEqual",
            "unknown_operator",
            "StringEquals?",
        ),
        (
            with(json!({"Condition": {"Bool": {"cumulo:MFA": true}}})),
            "/Statement/0/Condition/Bool/cumulo:MFA",
            "unknown_key",
            "cumulo:MFA",
        ),
        (
            with(json!({"Condition": {"StringEquals": {"cumulo:SourceIp": "x"}}})),
            "/Statement/0/Condition/StringEquals/cumulo:SourceIp",
            "wrong_operator",
            "address",
        ),
        (
            with(json!({"Condition": {"IpAddress": {"cumulo:SourceIp": ["10.0.0.0/8", "office"]}}})),
            "/Statement/0/Condition/IpAddress/cumulo:SourceIp/1",
            "invalid_value",
            "office",
        ),
        (
            with(json!({"Condition": {"NumericLessThan": {"compute:Vcpus": "many"}}})),
            "/Statement/0/Condition/NumericLessThan/compute:Vcpus",
            "invalid_value",
            "number",
        ),
        (
            with(json!({"Condition": {"NumericLessThan": {"compute:Vcpus": "NaN"}}})),
            "/Statement/0/Condition/NumericLessThan/compute:Vcpus",
            "invalid_value",
            "number",
        ),
        (
            with(json!({"Condition": {"StringEquals": {"cumulo:LabelKeys": "a"}}})),
            "/Statement/0/Condition/StringEquals/cumulo:LabelKeys",
            "wrong_operator",
            "ForAnyValue:",
        ),
        (
            with(json!({"Condition": {"ForAnyValue:StringEquals": {"cumulo:PrincipalName": "a"}}})),
            "/Statement/0/Condition/ForAnyValue:StringEquals/cumulo:PrincipalName",
            "wrong_operator",
            "leave out",
        ),
        (
            with(json!({"Condition": {"StringEquals": {"cumulo:ResourceLabel/a/b": {}}}})),
            "/Statement/0/Condition/StringEquals/cumulo:ResourceLabel~1a~1b",
            "invalid",
            "text",
        ),
        (
            with(json!({"Condition": {"Null": {"cumulo:SourceIp": "maybe"}}})),
            "/Statement/0/Condition/Null/cumulo:SourceIp",
            "invalid_value",
            "true or false",
        ),
    ];
    for (document, pointer, code, words) in cases {
        refused(&document, pointer, code, words);
    }
    let twice = json!({"Version": "2012-10-17", "Statement": [with(json!({}))["Statement"][0], with(json!({}))["Statement"][0]]});
    refused(&twice, "/Statement/1/Sid", "duplicate", "Sid");
}

#[test]
fn huge_documents_are_refused_in_few_words() {
    let many = json!({"Version": "2012-10-17", "Statement": vec![with(json!({"Sid": null}))["Statement"][0].clone(); 10_000]});
    refused(&many, "/Statement", "out_of_range", "10000");
    let most = vec![
        with(json!({"Sid": null, "Action": vec!["compute:CreateInstance"; 100]}))["Statement"][0]
            .clone();
        MAX_STATEMENTS
    ];
    refused(&json!({"Version": "2012-10-17", "Statement": most}), "", "too_long", "KiB");
    refused(&with(json!({"Action": "x".repeat(1 << 20)})), "/Statement/0/Action", "too_long", "1024");
    let wrong = vec![json!({"Effect": 1}); MAX_STATEMENTS];
    let findings =
        Document::parse(&json!({"Version": "2012-10-17", "Statement": wrong}), &VOCABULARY).unwrap_err();
    assert_eq!(findings.len(), 50);
}

/// One statement for each of these conditions.
fn conditions(all: &[Value]) -> Value {
    let statements: Vec<Value> =
        all.iter().map(|one| with(json!({"Sid": null, "Condition": one}))["Statement"][0].clone()).collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

#[test]
fn what_costs_too_much_is_refused_where_it_becomes_too_much() {
    let any_label = |pattern: &str| json!({"ForAnyValue:StringLike": {"cumulo:LabelKeys": ["x", pattern]}});
    // Three of these are enough.
    let costly = vec![any_label("*secret*"); 5];
    assert!(Document::parse(&conditions(&costly[..2]), &VOCABULARY).is_ok());
    let findings = Document::parse(&conditions(&costly), &VOCABULARY).unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let at = "/Statement/2/Condition/ForAnyValue:StringLike/cumulo:LabelKeys/1";
    assert_eq!((findings[0].pointer.as_str(), findings[0].code), (at, "too_complex"));
    // The resource, and of each value its length and what has to be looked for; for each label.
    let found = 5 * (8 + 32 * ((8 + 1) + (8 + 8 + 7 * 64)));
    for number in [MAX_STEPS, found] {
        assert!(findings[0].message.contains(&format!(" {number}")), "{}", findings[0].message);
    }
    // It stays in force where it has been accepted before.
    assert!(Document::parse_stored(&conditions(&costly), &VOCABULARY).is_ok());

    let name = |pattern: &str| json!({"StringLike": {"cumulo:PrincipalName": vec![pattern; 10]}});
    for (pattern, accepted) in
        [("*secret*", 7), ("secret-*", 100), ("*-secret", 100), ("${cumulo:PrincipalName}", 8)]
    {
        let document = |count| conditions(&vec![name(pattern); count]);
        assert!(Document::parse(&document(accepted), &VOCABULARY).is_ok(), "{pattern}");
    }
    refused(
        &conditions(&vec![name("*secret*"); 8]),
        "/Statement/7/Condition/StringLike/cumulo:PrincipalName/0",
        "too_complex",
        "",
    );
    let resource =
        with(json!({"Resource": vec![format!("crn:cumulo:compute:*:instance/*{}*", "a".repeat(40)); 20]}));
    refused(&resource, "/Statement/0/Resource/12", "too_complex", "32768");
}

/// `count` fields with names of this length.
fn fields(count: usize, length: usize, value: &Value) -> Value {
    let name = |number| format!("{number:06}{}", "é".repeat(length / 2 - 3));
    (0..count).map(|number| (name(number), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_megabyte_of_faults_is_answered_in_few_words() {
    let value = json!({"cumulo:PrincipalName": "x"});
    for (count, length) in [(10_000, 100), (1, 1 << 20)] {
        let label = format!("cumulo:ResourceLabel/{}", "x".repeat(length));
        for document in [
            with(fields(count, length, &value)),
            with(json!({"Condition": fields(count, length, &value)})),
            with(json!({"Condition": {"StringEquals": fields(count, length, &json!("x"))}})),
            with(json!({"Condition": {"IpAddress": {label: "10.0.0.0/8"}}})),
            json!({"Version": "2012-10-17", "Statement": fields(count, length, &json!("x"))}),
        ] {
            let findings = Document::parse(&document, &VOCABULARY).unwrap_err();
            let said: usize = findings.iter().map(|one| one.pointer.len() + one.message.len()).sum();
            assert!(said < 50 * 600, "{said} bytes about {count} names of {length} bytes");
        }
    }
    for text in [
        "x".repeat(1_000),
        format!("compute:{}", "x".repeat(900)),
        format!("crn:cumulo:{}:a:b/c", "x".repeat(900)),
    ] {
        for element in ["Action", "Resource"] {
            for one in Document::parse(&with(json!({element: text})), &VOCABULARY).unwrap_err() {
                assert!(one.message.len() < 300, "{}", one.message);
            }
        }
    }
}

#[test]
fn friendly_forms_are_accepted() {
    let document = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Deny", "Action": "COMPUTE:deleteinstance", "Resource": ["crn:cumulo:compute:*:instance/${cumulo:principalname}"],
        "Condition": {"NumericLessThan": {"COMPUTE:vcpus": 4}, "StringLike": {"cumulo:resourcelabel/Tier": ["w*"]}}}});
    // Keys are spelled properly in variables, and in any case elsewhere.
    let findings = Document::parse(&document, &VOCABULARY).unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let text = document.to_string().replace("principalname", "PrincipalName");
    let parsed = Document::parse(&serde_json::from_str(&text).unwrap(), &VOCABULARY).unwrap();
    let canonical = serde_json::to_value(&parsed).unwrap();
    let condition = &canonical["Statement"][0]["Condition"];
    assert_eq!(
        condition,
        &json!({"NumericLessThan": {"compute:Vcpus": ["4"]}, "StringLike": {"cumulo:ResourceLabel/Tier": ["w*"]}})
    );
}
