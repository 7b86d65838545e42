package store

import (
	"testing"
)

func TestWhichEvidenceIsNewer(t *testing.T) {
	object := func(version string, asked, told int64, read Read) Evidence {
		return Evidence{Says: Present, Version: version, Asked: asked, Told: told, Read: read, UIDs: []string{"u"}}
	}
	event := func(version string, told int64) Evidence { return object(version, told, told, Stream) }
	missing := func(floor string, asked, told int64, read Read) Evidence {
		return Evidence{Says: Gone, Floor: floor, Asked: asked, Told: told, Read: read}
	}
	deleted := missing("20", 3, 4, Latest)
	deleted.UIDs = []string{"u"}
	lacking := func(version string, asked, told int64, read Read, moved bool) Evidence {
		return Evidence{Says: Gone, Version: version, Asked: asked, Told: told, Read: read, Moved: moved}
	}
	confirmed := object("5", 1, 2, Latest)
	confirmed.Floor = "30"
	const newer, older, unknown = "newer", "older", "unknown"
	for name, tt := range map[string]struct {
		a, b Evidence
		want string
	}{
		"a higher version":                              {object("20", 1, 2, Latest), object("10", 3, 4, Lagging), newer},
		"a higher version that came first":              {object("20", 1, 2, Latest), object("10", 1, 5, Latest), newer},
		"a lower version of a restored cluster":         {object("10", 3, 4, Latest), object("20", 1, 2, Latest), newer},
		"a lower version of a cache of the API server":  {object("10", 3, 4, Lagging), object("20", 1, 2, Latest), older},
		"the same version, again":                       {object("10", 3, 4, Lagging), object("10", 1, 2, Lagging), newer},
		"versions of 64 bits":                           {object("18446744073709551615", 1, 2, Lagging), object("9223372036854775808", 3, 4, Lagging), newer},
		"a number is not what begins with one":          {object("7abc", 1, 2, Latest), object("8", 1, 3, Latest), unknown},
		"versions that are no numbers, asked for later": {object("x", 3, 4, Latest), object("y", 1, 2, Latest), newer},
		"versions that are no numbers, of a cache":      {object("x", 3, 4, Lagging), object("y", 1, 2, Latest), unknown},
		"versions that are no numbers, an event":        {event("x", 4), object("y", 1, 2, Latest), newer},
		"a 404 after the object":                        {missing("10", 3, 4, Latest), object("10", 1, 2, Latest), newer},
		"a 404 while a list of the object came in":      {missing("10", 3, 4, Latest), object("15", 1, 6, Latest), unknown},
		"a write while events went by, without numbers": {object("x", 3, 4, Latest), lacking("y", 1, 9, Latest, true), unknown},
		"a 404 before the object":                       {missing("10", 1, 2, Latest), object("11", 3, 4, Latest), older},
		"a 404 of a cache after the object":             {missing("20", 3, 4, Lagging), object("20", 1, 2, Latest), unknown},
		"a 404 before an event of a new object":         {missing("10", 1, 2, Latest), event("11", 3), older},
		"a 404 before a late event of an old object":    {missing("10", 1, 2, Latest), event("9", 3), unknown},
		"a 404 while the object was told":               {missing("10", 1, 4, Latest), object("10", 2, 3, Latest), unknown},
		"a 404 while an event of the object came":       {missing("10", 1, 4, Latest), event("10", 2), unknown},
		"two 404s, of which one began and ended first":  {missing("", 2, 4, Latest), missing("", 1, 3, Latest), unknown},
		"a deletion before a late event of its object":  {deleted, event("25", 5), newer},
		"a deletion before its object is read again":    {deleted, object("15", 5, 6, Latest), older}, // in a restored cluster
		"a later 404": {missing("", 3, 4, Latest), missing("", 1, 2, Latest), newer},
		"a list that lacks the object, at a higher version": {lacking("20", 1, 2, Latest, false), object("10", 1, 2, Latest), newer},
		"a list that lacks it, and events since":            {lacking("30", 1, 9, Latest, true), object("20", 3, 4, Latest), newer},
		"a write after a list that lacks it":                {lacking("10", 1, 2, Latest, false), object("20", 3, 4, Latest), older},
		"events do not tell a collection of what a 409 has": {lacking("30", 1, 9, Latest, true), Evidence{Says: Exists, Floor: "20", Asked: 3, Told: 4, Read: Latest}, unknown},
		"a list after a 409":                                {lacking("30", 5, 6, Latest, false), Evidence{Says: Exists, Floor: "20", Asked: 3, Told: 4, Read: Latest}, newer},
		"a collection that confirms an older version later": {object("20", 1, 2, Stream), confirmed, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			got := unknown
			switch ab, ba := tt.a.Newer(tt.b), tt.b.Newer(tt.a); {
			case ab && ba:
				got = "both"
			case ab:
				got = newer
			case ba:
				got = older
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// No two answers are each newer than the other, whatever they say.
func FuzzNewerHasOneDirection(f *testing.F) {
	f.Add(uint64(1), uint64(2), "10", "20", "", "15")
	f.Add(uint64(0xfedcba), uint64(0x123456), "x", "", "7abc", "0")
	f.Fuzz(func(t *testing.T, x, y uint64, versionX, versionY, floorX, floorY string) {
		evidence := func(bits uint64, version, floor string) Evidence {
			asked := int64(bits & 7)
			e := Evidence{
				Says: []Says{Present, Exists, Gone, Unknown}[bits>>3&3], Read: []Read{Latest, Lagging, Stream, Latest}[bits>>5&3],
				Version: version, Floor: floor, Asked: asked, Told: asked + int64(bits>>7&7), Moved: bits>>10&1 == 1,
				UIDs: []string{[]string{"", "u", "v", "w"}[bits>>11&3]},
			}
			return e
		}
		a, b := evidence(x, versionX, floorX), evidence(y, versionY, floorY)
		if a.Newer(b) && b.Newer(a) {
			t.Errorf("both are newer:\n%+v\n%+v", a, b)
		}
		if a.Agrees(b) != b.Agrees(a) {
			t.Errorf("only one agrees:\n%+v\n%+v", a, b)
		}
		if a.Contradiction([]Evidence{a}) >= 0 && a.Says != Refused {
			t.Errorf("it contradicts itself: %+v", a)
		}
	})
}

func TestWhatAgrees(t *testing.T) {
	present := Evidence{Says: Present, Version: "10", Told: 1, UIDs: []string{"u"}}
	another := Evidence{Says: Present, Version: "10", Told: 2, UIDs: []string{"v"}}
	for name, tt := range map[string]struct {
		a, b Evidence
		want bool
	}{
		"the same version":                     {present, Evidence{Says: Present, Version: "10", Told: 2, UIDs: []string{"u"}}, true},
		"the same version of another object":   {present, another, false},
		"another version":                      {present, Evidence{Says: Present, Version: "11", Told: 2, UIDs: []string{"u"}}, false},
		"that it exists":                       {present, Evidence{Says: Exists, Told: 2}, true},
		"that it exists at that version":       {present, Evidence{Says: Exists, Version: "10", Told: 2}, true},
		"that it exists at another version":    {present, Evidence{Says: Exists, Version: "11", Told: 2}, false},
		"that it may be anything":              {present, Evidence{Says: Unknown, Told: 2}, false},
		"that something happened at a version": {present, Evidence{Says: Unknown, Version: "10", Told: 2}, true},
		"that a list of that version lacks it": {Evidence{Says: Gone, Version: "10", Told: 1}, Evidence{Says: Unknown, Version: "10", Told: 2}, true},
		"that it is gone":                      {present, Evidence{Says: Gone, Told: 2}, false},
		"two 404s":                             {Evidence{Says: Gone, Told: 1}, Evidence{Says: Gone, Told: 2}, true},
		"objects without versions":             {Evidence{Says: Present, Told: 1}, Evidence{Says: Present, Told: 2}, false},
		"one object without a version":         {Evidence{Says: Present, Told: 1}, Evidence{Says: Present, Told: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.a.Agrees(tt.b); got != tt.want || tt.b.Agrees(tt.a) != got {
				t.Errorf("%v", got)
			}
		})
	}
}
