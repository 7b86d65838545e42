package proxy

// handlerStack is the stack that most requests need, in bytes, below 16 KiB with what is on it
// before. The runtime doubles the stack of a goroutine that needs more than it has, from a few KiB
// on, and each time copies what is on it, frame by frame. A watch needs less most of its time, and
// many may be open: its stack grows as it must.
const handlerStack = 12 << 10

// growStack grows the stack of the calling goroutine to handlerStack, if it is smaller. net/http
// has a new goroutine for each HTTP/2 request. When its stack is grown at once, while there is
// hardly anything on it, nothing deeper has to be copied. The function reserves the frame and
// returns before it uses it.
//
//go:noinline
func growStack(use int) byte { //nolint:unparam // without a result there would be no frame
	if use == 0 {
		return 0
	}
	var frame [handlerStack]byte
	for i := range use % handlerStack {
		frame[i] = byte(use)
	}
	return frame[use%handlerStack]
}
