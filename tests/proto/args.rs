//! What a program sees of arguments, in and out, compared with what JavaScript and Python see.

use std::{borrow::Cow, collections::BTreeMap, iter};

use rstest::rstest;
use serde::{
    Deserialize, Serialize,
    ser::{SerializeTuple, Serializer},
};
use serde_json::{Value, json};
use tinysio::{
    Bytes, RawValue,
    proto::socket::{Args, Body, EncodeError, Outgoing, OwnedArgs, Packet},
};

/// The arguments that `data` becomes, as JSON.
fn arguments<T: Serialize + ?Sized>(data: &T) -> String {
    let event = Outgoing::event("/", "e", None).encode(data).unwrap();
    let event = event.frames().next().unwrap().text().unwrap();
    let ack = Outgoing::ack("/", 7).encode(data).unwrap();
    let ack = ack.frames().next().unwrap().text().unwrap();
    // An ACK's array is an EVENT's without the name.
    let after_name = event.split_once(r#"["e""#).unwrap().1.trim_start_matches(',');
    let after_id = ack.split_once("7[").unwrap().1;
    assert_eq!(after_name, after_id);
    format!("[{after_name}")
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Move {
    x: i32,
    y: i32,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Id(u32);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u32, u32);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Empty;
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(u32),
    Line(u32, u32),
    Box { side: u32 },
}

#[derive(Serialize)]
#[serde(transparent)]
struct Rgb([u8; 3]);
#[derive(Serialize)]
#[serde(transparent)]
struct Transparent<T>(T);

/// A `Serialize` that does as a tuple's does.
struct ByHand(u8, &'static str);
impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        tuple.serialize_element(self.1)?;
        tuple.end()
    }
}

#[rstest]
#[case::nothing((), "[]")]
#[case::a_tuple((1, "a", None::<u8>), r#"[1,"a",null]"#)]
#[case::one_in_a_tuple((1,), "[1]")]
#[case::a_tuple_in_a_tuple(((1, 2),), "[[1,2]]")]
#[case::nothing_in_a_tuple(((),), "[null]")]
#[case::a_reference(&(1, 2), "[1,2]")]
#[case::a_box(Box::new((1, 2)), "[1,2]")]
#[case::a_reference_to_a_box(&&Box::new((1, 2)), "[1,2]")]
#[case::a_mutable_reference(&mut (1, 2), "[1,2]")]
#[case::a_cow(Cow::<(i32, i32)>::Owned((1, 2)), "[1,2]")]
#[case::a_reference_to_nothing(&(), "[]")]
#[case::an_array([1, 2], "[[1,2]]")]
#[case::an_array_of_floats([1.0, 2.0, 3.0], "[[1.0,2.0,3.0]]")]
#[case::an_array_of_one(["a"], r#"[["a"]]"#)]
#[case::an_empty_array([0u8; 0], "[[]]")]
#[case::an_array_of_tuples([(1, "a"), (2, "b")], r#"[[[1,"a"],[2,"b"]]]"#)]
#[case::a_reference_to_an_array(&&[1, 2], "[[1,2]]")]
#[case::a_box_of_an_array(Box::new([1, 2]), "[[1,2]]")]
#[case::an_array_in_a_tuple(([1, 2],), "[[1,2]]")]
#[case::a_tuple_of_arrays(([1, 2], [3, 4]), "[[1,2],[3,4]]")]
#[case::a_number(7, "[7]")]
#[case::a_wide_number(u128::MAX, "[340282366920938463463374607431768211455]")]
#[case::a_float(0.5, "[0.5]")]
#[case::not_a_number(f64::NAN, "[null]")]
#[case::a_bool(true, "[true]")]
#[case::a_char('€', r#"["€"]"#)]
#[case::a_str("a\"b", r#"["a\"b"]"#)]
#[case::a_string(String::from("a"), r#"["a"]"#)]
#[case::a_vec(vec![1, 2], "[[1,2]]")]
#[case::an_empty_vec(Vec::<u8>::new(), "[[]]")]
#[case::a_slice(&[1, 2][..], "[[1,2]]")]
#[case::none(None::<u8>, "[null]")]
#[case::some(Some(1), "[1]")]
#[case::some_tuple(Some((1, 2)), "[[1,2]]")]
#[case::a_map(BTreeMap::from([("a", 1)]), r#"[{"a":1}]"#)]
#[case::a_struct(Move { x: 1, y: 2 }, r#"[{"x":1,"y":2}]"#)]
#[case::a_newtype(Id(1), "[1]")]
#[case::a_tuple_struct(Pair(1, 2), "[[1,2]]")]
#[case::a_unit_struct(Empty, "[null]")]
#[case::a_unit_variant(Shape::Point, r#"["Point"]"#)]
#[case::a_newtype_variant(Shape::Circle(1), r#"[{"Circle":1}]"#)]
#[case::a_tuple_variant(Shape::Line(1, 2), r#"[{"Line":[1,2]}]"#)]
#[case::a_struct_variant(Shape::Box { side: 1 }, r#"[{"Box":{"side":1}}]"#)]
#[case::a_value(json!({"a": [1]}), r#"[{"a":[1]}]"#)]
#[case::a_value_array(json!([1, 2]), "[[1,2]]")]
#[case::a_null_value(Value::Null, "[null]")]
#[case::a_reference_to_a_null_value(&Value::Null, "[null]")]
#[case::a_null_value_in_a_tuple((Value::Null,), "[null]")]
#[case::nothing_at_all(None::<()>, "[null]")]
#[case::some_nothing(Some(()), "[null]")]
#[case::a_transparent_struct_of_an_array(Rgb([1, 2, 3]), "[[1,2,3]]")]
#[case::a_transparent_struct_of_a_tuple(Transparent((1, 2)), "[[1,2]]")]
#[case::a_struct_that_serialises_as_a_tuple(ByHand(1, "a"), r#"[[1,"a"]]"#)]
#[case::raw_null(RawValue::from_string("null".into()).unwrap(), "[null]")]
#[case::raw(RawValue::from_string("[1, 2]".into()).unwrap(), "[[1, 2]]")]
fn only_tuples_spread<T: Serialize>(#[case] data: T, #[case] expected: &str) {
    assert_eq!(arguments(&data), expected);
}

#[test]
fn unsized_data() {
    assert_eq!(arguments("a"), r#"["a"]"#);
    assert_eq!(arguments(&[1, 2][..]), "[[1,2]]");
}

/// Arguments spread however they are handed over, also through code that knows only `Serialize`.
#[test]
fn arguments_that_came_spread_again() {
    fn generic(data: impl Serialize) -> String {
        arguments(&data)
    }
    with_args("[1],null,\"\\ud83d\"", |args| {
        let expected = r#"[[1],null,"\ud83d"]"#;
        assert_eq!(generic(&args), expected);
        assert_eq!(generic(Box::new(args.to_owned())), expected);
        assert_eq!(generic(Transparent(&args)), expected);
        assert_eq!(generic((&args,)), format!("[{expected}]"));
        assert_eq!(generic(Some(&args)), format!("[{expected}]"));
        assert_eq!(generic(args), expected);
    });
    assert_eq!(generic(Args::default()), "[]");
}

#[test]
fn arguments_one_by_one() {
    let mut args = OwnedArgs::default();
    args.push("a").unwrap();
    args.push(&Bytes::from_static(&[7])).unwrap();
    args.push(&RawValue::from_string(r#"{"a":1, "a":1e400}"#.into()).unwrap()).unwrap();
    args.push(&(Bytes::from_static(&[8, 9]), [1, 2])).unwrap();
    assert!(matches!(args.push(&vec![Bytes::new(); 9]), Err(EncodeError::TooManyAttachments(11))));
    assert!(matches!(args.push(&BTreeMap::from([((1, 2), 3)])), Err(EncodeError::Json(_))));
    let encoded = Outgoing::event("/", "e", None).encode(&args).unwrap();
    let frames: Vec<_> = encoded.frames().collect();
    assert_eq!(
        frames[0].text(),
        Some(concat!(
            r#"452-["e","a",{"_placeholder":true,"num":0},{"a":1, "a":1e400},"#,
            r#"[{"_placeholder":true,"num":1},[1,2]]]"#
        ))
    );
    assert_eq!(frames[1..].iter().map(|frame| frame.data).collect::<Vec<_>>(), [&[7][..], &[8, 9]]);
}

#[derive(Serialize)]
struct Blob<'a> {
    name: &'a str,
    data: Bytes,
}

#[test]
fn bytes_become_attachments_in_order_of_visit() {
    let blob = Blob { name: "b", data: Bytes::from_static(&[2]) };
    let data = (Bytes::from_static(&[1]), &blob, vec![Some(Bytes::from_static(&[3])), None], vec![4u8]);
    let encoded = Outgoing::event("/a", "e", Some(5)).encode(&data).unwrap();
    let frames: Vec<_> = encoded.frames().collect();
    assert_eq!(
        frames[0].text(),
        Some(concat!(
            r#"453-/a,5["e",{"_placeholder":true,"num":0},{"name":"b","data":{"_placeholder":true,"num":1}},"#,
            r#"[{"_placeholder":true,"num":2},null],[4]]"#
        ))
    );
    let attachments: Vec<_> = frames[1..].iter().map(|frame| frame.data).collect();
    assert_eq!(attachments, [[1], [2], [3]]);
}

#[rstest]
#[case(10, true)]
#[case(11, false)]
fn no_more_attachments_than_clients_take(#[case] count: usize, #[case] good: bool) {
    let data = vec![Bytes::from_static(b"x"); count];
    match Outgoing::ack("/", 0).encode(&data) {
        Ok(encoded) => assert!(good && encoded.frames().count() == 1 + count),
        Err(error) => assert!(!good && matches!(error, EncodeError::TooManyAttachments(11)), "{error}"),
    }
}

#[test]
fn what_cannot_be_sent() {
    let reserved = Outgoing::event("/", "disconnect", None).encode(&());
    assert!(matches!(reserved, Err(EncodeError::ReservedEvent)));
    let keys = Outgoing::event("/", "e", None).encode(&BTreeMap::from([((1, 2), 3)]));
    assert!(matches!(keys, Err(EncodeError::Json(_))));
    let keys = Outgoing::event("/", "e", None).encode(&(1, BTreeMap::from([((1, 2), 3)])));
    assert!(matches!(keys, Err(EncodeError::Json(_))));
}

#[rstest]
#[case::connect(Outgoing::connect("/"), json!({"a": 1}), Some(r#"40{"a":1}"#))]
#[case::connect_without(Outgoing::connect("/a"), json!(null), Some("40/a,"))]
#[case::connect_a_string(Outgoing::connect("/"), json!("a"), None)]
#[case::connect_a_list(Outgoing::connect("/"), json!([1]), None)]
#[case::refusal(Outgoing::connect_error("/a"), json!({"message": "no"}), Some(r#"44/a,{"message":"no"}"#))]
#[case::refusal_a_string(Outgoing::connect_error("/"), json!("no"), Some(r#"44"no""#))]
#[case::refusal_a_number(Outgoing::connect_error("/"), json!(1), None)]
#[case::disconnect(Outgoing::disconnect("/a"), json!(null), Some("41/a,"))]
#[case::disconnect_with(Outgoing::disconnect("/"), json!({}), None)]
fn other_packets(#[case] packet: Outgoing<'_>, #[case] data: Value, #[case] text: Option<&str>) {
    match packet.encode(&data) {
        Ok(encoded) => assert_eq!(encoded.frames().next().unwrap().text(), text),
        Err(error) => assert!(text.is_none() && matches!(error, EncodeError::InvalidPayload), "{error}"),
    }
}

/// Runs `test` with the arguments of `["e",…]` and two attachments, `01` and `0203`, if there is a placeholder.
fn with_args<R>(json: &str, test: impl FnOnce(Args<'_>) -> R) -> R {
    let attachments = [Bytes::from_static(&[1]), Bytes::from_static(&[2, 3])];
    let json = json
        .replace("$0", r#"{"_placeholder":true,"num":0}"#)
        .replace("$1", r#"{"_placeholder":true,"num":1}"#);
    let (text, attachments) = if json.contains("_placeholder") {
        (format!(r#"52-["e",{json}]"#), &attachments[..])
    } else {
        (format!(r#"2["e",{json}]"#).replace(",]", "]"), &[][..])
    };
    let packet = Packet::decode(&text, attachments).unwrap();
    let Body::Event { args, .. } = packet.body else { panic!("no event") };
    test(args)
}

fn get<T: for<'a> Deserialize<'a>>(json: &str, index: usize) -> Result<T, String> {
    let get = with_args(json, |args| args.get(index).map_err(|error| error.to_string()));
    // An owned copy says the same.
    let owned: Result<T, _> = with_args(json, |args| args.to_owned()).get(index);
    assert_eq!(get.is_ok(), owned.is_ok());
    get
}

fn parse<T: for<'a> Deserialize<'a>>(json: &str) -> Result<T, String> {
    with_args(json, |args| args.parse().map_err(|error| error.to_string()))
}

#[test]
fn get_one() {
    assert_eq!(get(r#"1,"a""#, 0), Ok(1));
    assert_eq!(get(r#"1,"a""#, 1), Ok("a".to_owned()));
    assert_eq!(get(r#""\u0041\n""#, 0), Ok("A\n".to_owned()));
    assert_eq!(get(r#"{"x":1,"y":2}"#, 0), Ok(Move { x: 1, y: 2 }));
    assert_eq!(get(r#""Point""#, 0), Ok(Shape::Point));
    assert_eq!(get(r#"{"Line":[1,2]}"#, 0), Ok(Shape::Line(1, 2)));
    assert_eq!(get(r#"[1,{"a":null}]"#, 0), Ok(json!([1, {"a": null}])));
    assert!(get::<u8>(r#""a""#, 0).is_err());
    assert!(get::<u8>("256", 0).is_err());
    assert!(get::<u8>("-1", 0).is_err());
    assert!(get::<String>(r#""\ud83d""#, 0).is_err());
}

/// serde reads ahead in such a type, before it knows that bytes are wanted: an error, and never another value.
#[test]
fn bytes_in_a_type_that_serde_reads_ahead() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        File { data: Bytes },
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        File { data: Bytes },
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner {
        data: Bytes,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum TaggedFromOutside {
        File { data: Bytes },
    }
    let data = Bytes::from_static(b"abc");
    let mut args = OwnedArgs::default();
    args.push(&Tagged::File { data: data.clone() }).unwrap();
    args.push(&Untagged::File { data: data.clone() }).unwrap();
    args.push(&Flat { name: "a".into(), inner: Inner { data: data.clone() } }).unwrap();
    args.push(&TaggedFromOutside::File { data: data.clone() }).unwrap();
    let args = args.args();
    assert!(
        args.get::<Tagged>(0).is_err() && args.get::<Untagged>(1).is_err() && args.get::<Flat>(2).is_err()
    );
    // The ways out that `Args::get` names.
    assert_eq!(args.get::<TaggedFromOutside>(3).unwrap(), TaggedFromOutside::File { data: data.clone() });
    for index in 0..3 {
        let member = args.raw(index).unwrap().member("data").unwrap();
        assert_eq!(member.parse::<Bytes>().unwrap(), data);
    }
}

/// JavaScript sees `undefined`, we `null`.
#[test]
fn get_a_missing_one() {
    assert_eq!(get::<Option<u8>>("1", 1), Ok(None));
    assert_eq!(get::<Value>("", 0), Ok(Value::Null));
    assert_eq!(get::<()>("", 5), Ok(()));
    assert!(get::<u8>("", 0).unwrap_err().contains("null"));
}

#[test]
fn parse_all() {
    assert_eq!(parse(r#"1,"a",[true]"#), Ok((1, "a".to_owned(), vec![true])));
    assert_eq!(parse("1,2,3"), Ok((1,)));
    assert_eq!(parse("1"), Ok((1, None::<String>, None::<u8>)));
    assert_eq!(parse("1,null,3"), Ok((1, None::<String>, 3)));
    assert_eq!(parse("1,2"), Ok([1, 2]));
    assert_eq!(parse("1,2"), Ok(vec![1, 2]));
    assert_eq!(parse("1,2"), Ok(Pair(1, 2)));
    assert_eq!(parse("1"), Ok(Id(1)));
    assert_eq!(parse("1,2"), Ok(()));
    assert_eq!(parse(""), Ok(()));
    assert_eq!(parse(""), Ok(Vec::<u8>::new()));
    assert_eq!(parse(r#"1,"a""#), Ok(json!([1, "a"])));
    assert!(parse::<(u8, u8)>("1").is_err());
    assert!(parse::<(u8, String)>("1,2").is_err());
    // A list of arguments is no single value.
    assert!(parse::<u8>("1").unwrap_err().contains("sequence"));
    assert!(parse::<String>(r#""a""#).unwrap_err().contains("sequence"));
    assert!(parse::<Move>(r#"{"x":1,"y":2}"#).is_err());
}

#[test]
fn borrowed_values_cost_no_copy() {
    with_args(r#""text",[1, 2]"#, |args| {
        let (text, raw): (&str, &RawValue) = args.parse().unwrap();
        assert_eq!((text, raw.get()), ("text", "[1, 2]"));
        assert_eq!(args.get::<&str>(0).unwrap().as_ptr(), text.as_ptr());
    });
    with_args("$1,$0", |args| {
        let bytes: &[u8] = args.get(0).unwrap();
        assert_eq!(bytes.as_ptr(), args.attachments()[1].as_ptr());
        let (first, second): (&[u8], Cow<'_, [u8]>) = args.parse().unwrap();
        assert_eq!((first, &*second), (&[2, 3][..], &[1][..]));
    });
}

#[derive(Debug, PartialEq, Deserialize)]
struct Upload {
    name: String,
    data: Bytes,
    thumb: Option<Vec<u8>>,
}
#[derive(Debug, PartialEq, Deserialize)]
enum Part {
    Raw(Bytes),
    Two(Bytes, Vec<u8>),
    Named { data: Bytes, size: u128, delta: i128 },
    End,
}
#[derive(Debug, PartialEq, Deserialize)]
struct Wrapped(Bytes);

#[test]
fn bytes_come_back() {
    let (one, two) = (Bytes::from_static(&[1]), Bytes::from_static(&[2, 3]));
    assert_eq!(get("$0", 0), Ok(one.clone()));
    assert_eq!(get("$1", 0), Ok(vec![2u8, 3]));
    assert_eq!(get("$1", 0), Ok([2u8, 3]));
    assert_eq!(get("$0", 0), Ok(Wrapped(one.clone())));
    assert_eq!(get("$0", 0), Ok(Some(one.clone())));
    assert_eq!(get("$0,null", 1), Ok(None::<Bytes>));
    assert_eq!(get("$0", 1), Ok(None::<Bytes>));
    assert_eq!(get("$0", 0), Ok(Box::new(one.clone())));
    assert_eq!(get("[$1,$0]", 0), Ok((two.clone(), vec![1u8])));
    assert_eq!(
        get(r#"{"a":$0,"b":$1}"#, 0),
        Ok(BTreeMap::from([("a".to_owned(), one.clone()), ("b".to_owned(), two.clone())]))
    );
    assert_eq!(
        get(r#"{"name":"n","data":$1,"thumb":$0,"more":[$0]}"#, 0),
        Ok(Upload { name: "n".into(), data: two.clone(), thumb: Some(vec![1]) })
    );
    assert_eq!(
        get(r#"[{"Raw":$0},{"Two":[$0,$1]},{"Named":{"data":$1,"size":1,"delta":-1}},"End"]"#, 0),
        Ok(vec![
            Part::Raw(one.clone()),
            Part::Two(one.clone(), vec![2, 3]),
            Part::Named { data: two.clone(), size: 1, delta: -1 },
            Part::End
        ])
    );
    assert_eq!(parse("1,$1,$0,\"a\""), Ok((1, two, one, "a".to_owned(), None::<Bytes>)));
}

/// In a packet with attachments, everything that is no attachment reads as it does in one without.
#[test]
fn plain_values_beside_bytes() {
    assert_eq!(get("$0,[1,2]", 1), Ok(vec![1u8, 2]));
    assert_eq!(get("$0,\"ab\"", 1), Ok(Bytes::from_static(b"ab")));
    assert_eq!(get("$0,[1,2]", 1), Ok(Bytes::from_static(&[1, 2])));
    assert_eq!(get("$0,-1.5", 1), Ok(-1.5));
    assert_eq!(get("$0,1", 1), Ok(1u128));
    assert_eq!(get("$0,-1", 1), Ok(-1i128));
    assert_eq!(get("$0,\"a\"", 1), Ok('a'));
    assert_eq!(get("$0,null", 1), Ok(()));
    assert_eq!(get("$0,null", 1), Ok(Empty));
    assert_eq!(get("$0,{\"1\":true}", 1), Ok(BTreeMap::from([(1, true)])));
    assert_eq!(get("$0,{\"Box\":{\"side\":1}}", 1), Ok(Shape::Box { side: 1 }));
    with_args("[$0, 1]", |args| {
        assert_eq!(args.get::<Box<RawValue>>(0).unwrap().get(), args.raw(0).unwrap().json());
    });
}

#[test]
fn bytes_are_not_found_where_none_are() {
    assert!(get::<Bytes>(r#"$0,{"num":0}"#, 1).unwrap_err().contains("map"));
    assert!(get::<Bytes>(r#"$0,{"_placeholder":false,"num":0}"#, 1).is_err());
    assert!(get::<Vec<u8>>(r#"$0,{"_placeholder":"true","num":0}"#, 1).is_err());
    assert!(get::<Vec<u8>>("$0,{}", 1).is_err());
    assert!(get::<String>("$0", 0).is_err());
    assert!(get::<Vec<String>>("$0", 0).is_err());
    assert!(get::<[u8; 3]>("$1", 0).is_err());
    // Without a type, a placeholder is the object it is.
    assert_eq!(get("$1", 0), Ok(json!({"_placeholder": true, "num": 1})));
}

#[test]
fn looking_at_arguments() {
    with_args("null,1", |args| {
        assert_eq!((args.len(), args.is_empty(), args.attachments().len()), (2, false, 0));
        let shown: Vec<_> = args.iter().map(|arg| (arg.is_null(), arg.has_binary(), arg.json())).collect();
        assert_eq!(shown, [(true, false, "null"), (false, false, "1")]);
        assert!(args.raw(2).is_none());
    });
    assert!(Args::default().is_empty() && OwnedArgs::default().args().is_empty());
}

/// What came goes on: whole, in part, in another order, twice, beside bytes of one's own.
#[test]
fn forwarding() {
    let forward = |json: &str, data: &dyn Fn(Args<'_>) -> tinysio::proto::socket::Encoded| {
        let encoded = with_args(json, data);
        let messages: Vec<_> = encoded.frames().collect();
        let bytes: Vec<_> =
            messages[1..].iter().flat_map(|frame| iter::once(0).chain(frame.data.iter().copied())).collect();
        (messages[0].text().unwrap().replace(r#"{"_placeholder":true,"num":"#, "$").replace('}', ""), bytes)
    };
    let news = Outgoing::event("/", "n", None);
    assert_eq!(
        forward("[$1],2,$0", &|args| news.encode(&args).unwrap()),
        (r#"452-["n",[$0],2,$1]"#.into(), vec![0, 2, 3, 0, 1])
    );
    assert_eq!(
        forward("$1,$0", &|args| news.encode(&args.raw(1)).unwrap()),
        (r#"451-["n",$0]"#.into(), vec![0, 1])
    );
    assert_eq!(
        forward("$0,[$1,[]]", &|args| news
            .encode(&(Bytes::from_static(&[9]), args.raw(1), args.raw(0), args.raw(0)))
            .unwrap()),
        (r#"454-["n",$0,[$1,[]],$2,$3]"#.into(), vec![0, 9, 0, 2, 3, 0, 1, 0, 1])
    );
    assert_eq!(
        forward("$0,1", &|args| Outgoing::ack("/", 3).encode(&args.to_owned()).unwrap()),
        (r#"461-3[$0,1]"#.into(), vec![0, 1])
    );
    assert_eq!(
        forward(r#"[{"x":[$1],"_placeholder":true,"num":0},2]"#, &|args| news.encode(&args).unwrap()),
        (r#"451-["n",[$0,2]]"#.into(), vec![0, 1])
    );
    assert_eq!(
        forward("1,\"a\"", &|args| news.encode(&(0, args)).unwrap()),
        (r#"42["n",0,[1,"a"]]"#.into(), vec![])
    );
    // To plain JSON, bytes are a list of numbers.
    assert_eq!(
        with_args("[$1,\"\\\"\"]", |args| serde_json::to_value(args).unwrap()),
        json!([[[2, 3], "\""]])
    );
}

/// A half of a surrogate pair becomes U+FFFD where it is asked for, and nothing else does.
#[rstest]
#[case::plain(r#""a""#, Some("a"))]
#[case::escapes(r#""\u0041\n\"""#, Some("A\n\""))]
#[case::a_pair(r#""\ud83d\ude00""#, Some("\u{1f600}"))]
#[case::the_first_half(r#""a\ud83d""#, Some("a\u{fffd}"))]
#[case::the_last_half(r#""\ude00é""#, Some("\u{fffd}é"))]
#[case::turned_round(r#""\ude00\ud83d""#, Some("\u{fffd}\u{fffd}"))]
#[case::a_half_and_a_pair(r#""\ud83d\ud83d\ude00\n""#, Some("\u{fffd}\u{1f600}\n"))]
#[case::a_number("1", None)]
#[case::null("null", None)]
fn a_string_may_be_read_with_loss(#[case] json: &str, #[case] text: Option<&str>) {
    with_args(json, |args| assert_eq!(args.raw(0).unwrap().to_string_lossy().as_deref(), text));
}

/// Members beside a name, or a value, that no Rust string can hold.
#[test]
fn members_beside_half_an_emoji() {
    with_args(r#"{"\ud83d":1,"a":"\ude00","b":1e999,"a\u0062":2}"#, |args| {
        let object = args.raw(0).unwrap();
        assert_eq!(object.member("a").unwrap().json(), r#""\ude00""#);
        assert_eq!(object.member("b").unwrap().json(), "1e999");
        assert_eq!(object.member("ab").unwrap().json(), "2");
    });
}
