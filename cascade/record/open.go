package record

// Window is how many packet numbers below the highest an Opener can tell apart; older records
// are refused.
const Window = 8192

// Opener decrypts the records of one direction of one connection, refusing what it has seen.
// Not safe for concurrent use.
type Opener struct {
	conn          uint32
	before, after *phaseKey // neighbours of key; before may be nil
	key           *phaseKey
	phase         uint8
	started       bool
	highest       uint64
	seen          [Window / 64]uint64
	nonce         [nonceSize]byte
}

// NewOpener makes an Opener from a direction's first secret and the connection id that this
// end has chosen.
func NewOpener(secret []byte, conn uint32) (*Opener, error) {
	key, err := newPhaseKey(secret)
	if err != nil {
		return nil, err
	}
	after, err := key.after()
	if err != nil {
		return nil, err
	}
	return &Opener{conn: conn, key: key, after: after}, nil
}

// Phase is the running number of the newest key that was used, modulo 256.
func (o *Opener) Phase() uint8 { return o.phase }

// Forget drops the key before the present one: records under it are refused from now on.
func (o *Opener) Forget() { o.before = nil }

// Highest is the highest packet number opened.
func (o *Opener) Highest() uint64 { return o.highest }

// Open checks and decrypts one record in place: payload aliases b, whose content is spoilt
// also where it fails. Its errors are this package's. Nothing is allocated but when the other
// end has changed its key.
func (o *Opener) Open(b []byte) (h Header, payload []byte, err error) {
	if h, err = Parse(b); err != nil {
		return h, nil, err
	}
	if h.Conn != o.conn {
		return h, nil, ErrConn
	}
	var key *phaseKey
	switch int8(h.Phase - o.phase) {
	case 0:
		key = o.key
	case 1:
		key = o.after
	case -1:
		key = o.before
	}
	if key == nil {
		return h, nil, ErrPhase
	}
	if err := o.fresh(h.Number); err != nil {
		return h, nil, err
	}
	key.nonce(&o.nonce, h.Number)
	payload, err = key.aead.Open(b[HeaderSize:HeaderSize], o.nonce[:], b[HeaderSize:], b[:HeaderSize])
	if err != nil {
		return h, nil, ErrForged
	}
	o.mark(h.Number)
	if key == o.after {
		if o.after, err = key.after(); err != nil {
			return h, nil, err
		}
		o.before, o.key = o.key, key
		o.phase++
	}
	return h, payload, nil
}

// fresh says whether a packet number may still be opened.
func (o *Opener) fresh(n uint64) error {
	switch {
	case !o.started || n > o.highest:
		return nil
	case o.highest-n >= Window:
		return ErrTooOld
	case o.seen[n%Window/64]&(1<<(n%64)) != 0:
		return ErrReplayed
	}
	return nil
}

func (o *Opener) mark(n uint64) {
	if !o.started || n > o.highest {
		from := o.highest + 1
		if !o.started || n-o.highest >= Window {
			clear(o.seen[:])
			from = n
		}
		for ; from < n; from++ {
			o.seen[from%Window/64] &^= 1 << (from % 64)
		}
		o.started, o.highest = true, n
	}
	o.seen[n%Window/64] |= 1 << (n % 64)
}
