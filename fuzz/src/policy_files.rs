//! Policy files and scopes: a text gives a rule set or problems with a place, never both, never neither.

use policy::peer::PeerName;
use policy::resource::Resource;
use policy::rules::RuleSet;
use policy::scope::Scope;

pub(crate) fn attack(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match RuleSet::parse(&[("a.toml", text)]) {
        Ok(rules) => {
            let again = RuleSet::parse(&[("b.toml", text)]).expect("the name decides nothing");
            assert_eq!(rules.hash(), again.hash());
            // A peer's own rules never reach beyond the common ceiling.
            let common = rules.ceiling_for(&PeerName::parse("nobody-in-particular").unwrap());
            for peer in rules.peers() {
                let own = rules.ceiling_for(peer);
                assert_eq!(common.meet(&own), *own, "`{peer}` reaches too far");
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
    }
    if let Ok(scope) = Scope::parse_text(text, &[]) {
        let sensitive = [Resource::Credentials, Resource::ApiKeys];
        for resource in scope.reach().resources.keys() {
            assert!(!sensitive.contains(resource), "{resource} was not allowed");
        }
    }
}
