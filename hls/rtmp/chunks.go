package rtmp

import (
	"encoding/binary"
	"errors"
)

// Limits of one message, in bytes. Only pictures are long. What else comes is parsed by the library recursively and without
// a bound of its own: some megabytes of nested objects would take the whole process with them.
const (
	maxPicture = 4 << 20
	maxMessage = 16 << 10
)

const (
	handshakeBytes = 1 + 2*1536 // C0, C1, C2, or S0, S1, S2
	plainVersion   = 3
	minChunk       = 128 // and what both sides begin with

	typeChunkSize = 1
	typeAbort     = 2
	typeVideo     = 9
	enhanced      = 0x80 // the first byte of a video message: what follows may be any kind of data
	extended      = 0xffffff
)

var (
	errNotRTMP = errors.New("not RTMP")
	errChunks  = errors.New("chunks that make no sense")
	errTooLong = errors.New("message too long")
)

// Chunks follows what comes from the other end of a connection (RTMP 1.0 section 5.3) to know how long each message will be
// before the library takes it in. It understands chunks exactly as the library does, and refuses what that could understand in
// another way. The zero value is at the beginning of a connection; it is for one goroutine.
type Chunks struct {
	handshake int // bytes that came
	size      int // of a chunk at most

	head [16]byte
	have int
	need int

	streams [64]chunkStream
	at      *chunkStream // whose body comes
	body    int          // bytes of it that are still to come, of this chunk

	control  [4]byte // body of a message that sets the chunk size
	controls int
}

// chunkStream is what one chunk's header says about the next one's.
type chunkStream struct {
	known    bool
	typ      byte
	length   int
	left     int // of the message that is under way
	extended bool
}

// Take looks at the bytes that came next. After an error neither they nor the connection may be used any more.
func (c *Chunks) Take(b []byte) error {
	for len(b) > 0 {
		var n int
		var err error
		switch {
		case c.handshake < handshakeBytes:
			if c.handshake == 0 && b[0] != plainVersion {
				return errNotRTMP
			}
			n = min(len(b), handshakeBytes-c.handshake)
			c.handshake += n
			c.size = minChunk
		case c.at != nil:
			n = min(len(b), c.body)
			err = c.part(b[:n])
		default:
			n = 1
			c.head[c.have] = b[0]
			c.have++
			err = c.header()
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// header looks at the header as far as it is there.
func (c *Chunks) header() error {
	format, id := c.head[0]>>6, c.head[0]&0x3f
	if id < 2 {
		return errChunks
	}
	s := &c.streams[id]
	if c.have == 1 {
		if format == 3 && !s.known || format == 2 && !s.known || format < 3 && s.left > 0 {
			return errChunks
		}
		c.need = 1 + [4]int{11, 7, 3, 0}[format]
		if format == 3 && s.extended { // also where it begins a message
			c.need += 4
		}
	}
	basic := 1 + [4]int{11, 7, 3, 0}[format]
	if c.have == basic && format < 3 && c.need == basic && c.time() == extended {
		c.need += 4
	}
	if c.have < c.need {
		return nil
	}
	if format < 3 {
		at := c.time()
		if c.need > basic {
			at = int(binary.BigEndian.Uint32(c.head[basic:]))
		}
		s.extended = at >= extended
	}
	if format < 2 {
		s.length, s.typ = int(c.head[4])<<16|int(c.head[5])<<8|int(c.head[6]), c.head[7]
		// After a format 1 without a time before it the library gives up by itself.
		s.known = true
	}
	c.have = 0
	return c.begin(s)
}

func (c *Chunks) time() int { return int(c.head[1])<<16 | int(c.head[2])<<8 | int(c.head[3]) }

// begin is called after a header: a chunk's body follows.
func (c *Chunks) begin(s *chunkStream) error {
	if s.left == 0 {
		most := maxMessage
		switch s.typ {
		case typeVideo:
			most = maxPicture
		case typeChunkSize:
			if s.length != len(c.control) {
				return errChunks
			}
			c.controls = 0
		case typeAbort: // nobody needs it
			return errChunks
		}
		if s.length > most {
			return errTooLong
		}
		s.left = s.length
	}
	if c.body = min(s.left, c.size); c.body > 0 {
		c.at = s
	}
	return nil
}

// part is called with bytes of a body.
func (c *Chunks) part(b []byte) error {
	s := c.at
	if s.typ == typeVideo && s.left == s.length && b[0]&enhanced != 0 && s.length > maxMessage {
		return errTooLong
	}
	if s.typ == typeChunkSize {
		c.controls += copy(c.control[c.controls:], b)
	}
	s.left -= len(b)
	if c.body -= len(b); c.body > 0 {
		return nil
	}
	c.at = nil
	if s.typ == typeChunkSize && s.left == 0 {
		size := binary.BigEndian.Uint32(c.control[:])
		if size < minChunk || size > 10<<20 {
			return errChunks
		}
		c.size = int(size)
	}
	return nil
}
