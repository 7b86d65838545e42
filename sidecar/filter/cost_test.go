package filter

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestWhatAFilteredListHoldsDoesNotGrowWithTheList(t *testing.T) {
	const most = 128 << 10 // bytes: a buffer from below, an item, and padding
	for _, format := range formats {
		t.Run(format.MediaType(), func(t *testing.T) {
			s := newServer(t)
			s.put(newService("web", topology("kubernetes.io/hostname")))
			e := encoding{t: t, format: format, kind: kinds["endpointslices"]}
			var all []object
			for i := range 5_000 {
				o := newSlice(fmt.Sprintf("web-%04d", i), "web", nodeName, "edge-2", "edge-3", "edge-4")
				o.ResourceVersion = "50"
				all = append(all, o)
			}
			body := e.list("100", all)
			if len(body) < 4*most {
				t.Fatalf("the list has %d bytes, which shows nothing", len(body))
			}
			f := newFilter(t, &fixed{s, body, format.MediaType(), pathSlices})
			resp, err := f.RoundTrip(newRequest(pathSlices, format.MediaType()))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			answer, ok := resp.Body.(*list)
			if !ok {
				t.Fatalf("the body is a %T", resp.Body)
			}
			buf := make([]byte, 4<<10)
			for err == nil {
				_, err = answer.Read(buf)
				if n := cap(answer.out); n > most {
					t.Fatalf("it holds %d bytes", n)
				}
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if n := len(answer.past.hidden); n > 0 {
				t.Errorf("it remembers %d objects, none of which is hidden", n)
			}
		})
	}
}
