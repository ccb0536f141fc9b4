package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config says where an S3-compatible object store is.
type S3Config struct {
	// Endpoint is a URL, http or https, without a path.
	Endpoint string
	Region   string // default us-east-1
	Bucket   string
	// Prefix is in front of all keys; may be empty.
	Prefix               string
	AccessKey, SecretKey string
	// PathStyle puts the bucket into the path instead of the host name.
	PathStyle bool
	// PartSize is the size of the parts of large files, in bytes, at least 5 MiB; default 16 MiB. It grows where 10,000 parts would not do.
	PartSize int64
	// Gate signs links to playlists, whose files are found beside them only there. Nil: links to playlists are the store's own.
	Gate *Gate
}

// S3 keeps objects in a bucket.
type S3 struct {
	cfg       S3Config
	core      *minio.Core
	transport *http.Transport
}

const (
	minPart  = 5 << 20
	maxParts = 10_000
	// answerTime is how long an answer may take; partTime the upload of one part.
	answerTime = 60 * time.Second
	partTime   = 10 * time.Minute
)

// NewS3 checks the configuration; nothing is asked of the store yet.
func NewS3(cfg S3Config) (*S3, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil {
		return nil, errors.New("configuring S3: the endpoint is no URL of http or https without a path")
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Prefix = strings.Trim(cfg.Prefix, "/"); cfg.Prefix != "" {
		if err := CheckKey(cfg.Prefix); err != nil {
			return nil, fmt.Errorf("configuring S3: prefix: %w", err)
		}
	}
	if cfg.PartSize == 0 {
		cfg.PartSize = 16 << 20
	}
	cfg.PartSize = max(minPart, cfg.PartSize)
	lookup := minio.BucketLookupDNS
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: answerTime, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4,
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""), Secure: u.Scheme == "https",
		Region: cfg.Region, BucketLookup: lookup,
		MaxRetries: 1, // the queue tries again
		Transport:  transport,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring S3: %w", err)
	}
	return &S3{cfg: cfg, core: core, transport: transport}, nil
}

func (s *S3) key(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return path.Join(s.cfg.Prefix, key), nil
}

// Put implements Store. What is larger than a part goes up in parts; those that arrived are not sent again after a failure or a restart.
func (s *S3) Put(ctx context.Context, u *Upload) error {
	key, err := s.key(u.Key)
	if err != nil {
		return err
	}
	f, err := os.Open(u.Path)
	if err != nil {
		return fmt.Errorf("storing %s: %w", u.Key, diskError(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("storing %s: %w", u.Key, diskError(err))
	}
	opts := minio.PutObjectOptions{ContentType: u.ContentType}
	if info.Size() > s.cfg.PartSize {
		err = s.putParts(ctx, u, key, f, info.Size(), opts)
	} else {
		ctx, cancel := context.WithTimeout(ctx, partTime)
		defer cancel()
		_, err = s.core.PutObject(ctx, s.cfg.Bucket, key, f, info.Size(), "", "", opts)
	}
	if err != nil {
		return fmt.Errorf("storing %s: %w", u.Key, s3Error(err))
	}
	return nil
}

// putParts goes on with the parts that the store has.
func (s *S3) putParts(ctx context.Context, u *Upload, key string, f *os.File, size int64, opts minio.PutObjectOptions) error {
	partSize := max(s.cfg.PartSize, (size+maxParts-1)/maxParts)
	id, have, err := s.resume(ctx, u, key)
	if err != nil {
		return err
	}
	if id == "" {
		s.abortOthers(ctx, key)
		if id, err = s.core.NewMultipartUpload(ctx, s.cfg.Bucket, key, opts); err != nil {
			return err
		}
		if u.Resume = id; u.Kept != nil {
			u.Kept(id)
		}
	}
	var parts []minio.CompletePart
	for n, at := 1, int64(0); at < size; n, at = n+1, at+partSize {
		length := min(partSize, size-at)
		p, ok := have[n]
		if !ok || p.Size != length {
			if p, err = s.putPart(ctx, key, id, n, io.NewSectionReader(f, at, length), length); err != nil {
				return err
			}
		}
		parts = append(parts, minio.CompletePart{PartNumber: n, ETag: p.ETag})
	}
	_, err = s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, key, id, parts, opts)
	return err
}

func (s *S3) putPart(ctx context.Context, key, id string, n int, r io.Reader, length int64) (minio.ObjectPart, error) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	return s.core.PutObjectPart(ctx, s.cfg.Bucket, key, id, n, r, length, minio.PutObjectPartOptions{})
}

// resume lists the parts of an upload that was begun; id is empty when there is none that the store knows of.
func (s *S3) resume(ctx context.Context, u *Upload, key string) (id string, have map[int]minio.ObjectPart, err error) {
	if u.Resume == "" {
		return "", nil, nil
	}
	have = map[int]minio.ObjectPart{}
	for marker := 0; ; {
		page, err := s.core.ListObjectParts(ctx, s.cfg.Bucket, key, u.Resume, marker, 1000)
		if minio.ToErrorResponse(err).Code == "NoSuchUpload" {
			return "", nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		for _, p := range page.ObjectParts {
			have[p.PartNumber] = p
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return u.Resume, have, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// Abort implements Aborter.
func (s *S3) Abort(ctx context.Context, key, resume string) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, full, resume)
	if err != nil && minio.ToErrorResponse(err).Code != "NoSuchUpload" {
		return fmt.Errorf("giving up an upload of %s: %w", key, s3Error(err))
	}
	return nil
}

// abortOthers removes uploads of a key that were begun by a process that was killed before it could keep their ids: nobody else uploads it.
// Where that cannot be, their parts stay until the bucket's own rules remove them.
func (s *S3) abortOthers(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	found, err := s.core.ListMultipartUploads(ctx, s.cfg.Bucket, key, "", "", "", 100)
	if err != nil {
		return
	}
	for _, u := range found.Uploads {
		if u.Key == key {
			_ = s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, key, u.UploadID)
		}
	}
}

// URL implements Store: presigned by the store's rules, for at most a week.
func (s *S3) URL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	full, err := s.key(key)
	if err != nil {
		return "", err
	}
	if isPlaylist(key) && s.cfg.Gate != nil {
		return s.cfg.Gate.Link(key, ttl), nil
	}
	link, err := s.core.PresignedGetObject(ctx, s.cfg.Bucket, full, max(time.Second, min(ttl, maxTTL)), nil)
	if err != nil {
		return "", fmt.Errorf("signing a link: %w", s3Error(err))
	}
	return link.String(), nil
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	full, err := s.key(key)
	if err != nil {
		return nil, err
	}
	body, _, _, err := s.core.GetObject(ctx, s.cfg.Bucket, full, minio.GetObjectOptions{})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", key, s3Error(err))
	}
	return body, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string) ([]Object, error) {
	base := ""
	if s.cfg.Prefix != "" {
		base = s.cfg.Prefix + "/"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing, also when it is left early
	var list []Object
	for o := range s.core.Client.ListObjects(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: base + prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("listing %q: %w", prefix, s3Error(o.Err))
		}
		if key, ok := strings.CutPrefix(o.Key, base); ok && !strings.HasSuffix(key, "/") {
			list = append(list, Object{Key: key, Size: o.Size, Time: o.LastModified})
		}
	}
	return list, nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, key string) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	err = s.core.Client.RemoveObject(ctx, s.cfg.Bucket, full, minio.RemoveObjectOptions{})
	if err = s3Error(err); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

// s3Error says what an error means, in words that hold neither keys nor signatures.
func s3Error(err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		var op *net.OpError
		var wrapped *url.Error
		switch {
		case errors.As(err, &op):
			return fmt.Errorf("the storage does not answer: %w", op.Err)
		case errors.As(err, &wrapped): // it holds the whole URL
			return fmt.Errorf("the storage does not answer: %w", wrapped.Err)
		}
		return diskError(err)
	}
	switch answer.Code {
	case "NoSuchKey":
		return ErrNotFound
	case "NoSuchBucket":
		return fmt.Errorf("%w: no such bucket", ErrDenied)
	case "InvalidAccessKeyId", "XAdminUserNotFound": // Amazon, versitygw
		return fmt.Errorf("%w: it does not know the access key", ErrDenied)
	case "SignatureDoesNotMatch":
		return fmt.Errorf("%w: the secret key is wrong", ErrDenied)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: this machine's clock is wrong", ErrDenied)
	case "QuotaExceeded", "XMinioStorageFull", "XAdminBucketQuotaExceeded", "InsufficientStorage", "InsufficientCapacity":
		return fmt.Errorf("%w: %s", ErrFull, answer.Code)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrDenied, answer.Code)
	case http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %s", ErrFull, answer.Code)
	}
	return fmt.Errorf("the storage answers %d %s", answer.StatusCode, answer.Code)
}

// Close lets go of idle connections.
func (s *S3) Close() { s.transport.CloseIdleConnections() }
