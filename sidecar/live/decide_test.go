package live

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/request"
)

const watchList = "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"

func TestWhoAnswersARead(t *testing.T) {
	with := func(change func(*Facts)) func(*Facts) { return change }
	same := func(*Facts) {}
	live := with(func(f *Facts) { f.Live = true })
	for name, c := range map[string]struct {
		target  string
		header  http.Header
		facts   func(*Facts)
		verdict Verdict
		why     string
	}{
		"a consistent list of a large collection is proven":      {"", nil, same, Proven, ""},
		"also when it is live, for the present may be later":     {"", nil, live, Proven, ""},
		"any version of a live collection is checked":            {"?resourceVersion=0", nil, live, Checked, ""},
		"any version of one that is not live is proven":          {"?resourceVersion=0", nil, same, Proven, ""},
		"one that is overtaken has to catch up":                  {"?resourceVersion=0", nil, func(f *Facts) { f.Live, f.Overtaken = true, true }, Proven, ""},
		"an older version of a live collection is checked":       {"?resourceVersion=99", nil, live, Checked, ""},
		"its own version, too":                                   {"?resourceVersion=100&resourceVersionMatch=NotOlderThan", nil, live, Checked, ""},
		"a newer version is proven":                              {"?resourceVersion=101&resourceVersionMatch=NotOlderThan", nil, live, Proven, ""},
		"an exact version passes":                                {"?resourceVersion=100&resourceVersionMatch=Exact", nil, live, Pass, "kind"},
		"a match without a version passes, which is an error":    {"?resourceVersionMatch=NotOlderThan", nil, live, Pass, "version"},
		"an unknown match passes, which is an error":             {"?resourceVersion=5&resourceVersionMatch=Newest", nil, live, Pass, "version"},
		"a version that is no number passes":                     {"?resourceVersion=new", nil, live, Pass, "version"},
		"the recorded version is no number":                      {"", nil, func(f *Facts) { f.Version = "v1" }, Pass, "version"},
		"a page that has all is proven":                          {"?limit=500", nil, same, Proven, ""},
		"a page that has not passes":                             {"?limit=499", nil, same, Pass, "pages"},
		"the limit does not count for any version":               {"?limit=1&resourceVersion=0", nil, live, Checked, ""},
		"a limit makes a version an exact one":                   {"?limit=500&resourceVersion=99", nil, live, Pass, "pages"},
		"a further page passes":                                  {"?limit=500&continue=abc", nil, same, Pass, "kind"},
		"a parameter that is not known passes":                   {"?shardSelector=x", nil, same, Pass, "kind"},
		"initial events of a list pass, which is an error":       {"?sendInitialEvents=true", nil, same, Pass, "kind"},
		"a client that acts as somebody else passes":             {"", http.Header{"Impersonate-User": {"a"}}, same, Pass, "kind"},
		"a person with curl passes, who gets indented JSON":      {"", http.Header{"User-Agent": {"curl/8"}, "Accept": {"*/*"}}, same, Pass, "kind"},
		"a client that is not recorded passes":                   {"", nil, func(f *Facts) { f.Principal = "" }, Pass, "kind"},
		"after an answer that broke off the API server's passes": {"?resourceVersion=0", nil, func(f *Facts) { f.Live, f.Slow = true, true }, Pass, "slow"},
		"what is not recorded passes":                            {"", nil, func(f *Facts) { f.Recorded = false }, Pass, "unrecorded"},
		"a list that is faster than a proof passes":              {"", nil, func(f *Facts) { f.List = f.Proof }, Pass, "small"},
		"a list passes that is to show what the link carries":    {"", nil, func(f *Facts) { f.Unmeasured = true }, Pass, "unmeasured"},
		"a live collection is checked before that is known":      {"?resourceVersion=0", nil, func(f *Facts) { f.Unmeasured, f.Live = true, true }, Checked, ""},
		"it passes also for any version, if it must be proven":   {"?resourceVersion=0", nil, func(f *Facts) { f.List = 0 }, Pass, "small"},
		"a live collection is checked, however small it is":      {"?resourceVersion=0", nil, func(f *Facts) { f.List, f.Live = 0, true }, Checked, ""},
		"a watch with its state is proven":                       {watchList, nil, live, Proven, ""},
		"a watch with any state of a live collection is checked": {watchList + "&resourceVersion=0", nil, live, Checked, ""},
		"also with a limit, which means nothing to a watch":      {watchList + "&limit=1", nil, live, Proven, ""},
		"a watch with its state, without bookmarks, passes":      {"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", nil, live, Pass, "kind"},
		"one without a match passes, which is an error":          {"?watch=true&sendInitialEvents=true&allowWatchBookmarks=true", nil, live, Pass, "kind"},
		"a watch without its state passes":                       {"?watch=true&resourceVersion=0", nil, live, Pass, "kind"},
		"nothing is saved when the setting does not say so":      {"", nil, func(f *Facts) { f.Save = false }, Pass, "off"},
		"an object that is read alone passes":                    {"/web", nil, live, Pass, "kind"},
		"a HEAD passes":                                          {"HEAD", nil, live, Pass, "kind"},
	} {
		t.Run(name, func(t *testing.T) {
			method, target := http.MethodGet, c.target
			if target == "HEAD" {
				method, target = http.MethodHead, ""
			}
			r := httptest.NewRequest(method, "/api/v1/namespaces/shop/pods"+target, nil)
			for name, values := range c.header {
				r.Header[name] = values
			}
			info := request.Parse(r)
			f := Facts{Save: true, Info: &info, Principal: "web", Recorded: true, Version: "100", Objects: 500, List: time.Minute, Proof: time.Second}
			c.facts(&f)
			if v, why := Decide(f); v != c.verdict || why != c.why {
				t.Errorf("%s, because of %q; want %s, %q", v, why, c.verdict, c.why)
			}
		})
	}
}

func TestHowNewAnAnswerMustBe(t *testing.T) {
	for name, c := range map[string]struct {
		verdict Verdict
		options request.Options
		want    string
	}{
		"proven: the present":            {Proven, request.Options{}, "200"},
		"any version, proven":            {Proven, request.Options{ResourceVersion: "0"}, "200"},
		"any version, checked":           {Checked, request.Options{ResourceVersion: "0"}, ""},
		"not older, checked: as it asks": {Checked, request.Options{ResourceVersion: "99"}, "99"},
		"not older, proven: the present": {Proven, request.Options{ResourceVersion: "150"}, "200"},
		"not older than what is to come": {Proven, request.Options{ResourceVersion: "250"}, "250"},
	} {
		if got := AtLeast(c.verdict, &request.Info{Options: c.options}, "200"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
