#include "av.h"

#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t amphi_thread_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void amphi_log_level(int level) { av_log_set_level(level); }

void amphi_error(int code, char *out, int n) { av_strerror(code, out, n); }

// ---- decoding ----

int amphi_decoder_open(amphi_decoder **out, const char *name, int64_t max_pixels, int reorder) {
  const AVCodec *codec = avcodec_find_decoder_by_name(name);
  if (!codec) return AVERROR_DECODER_NOT_FOUND;
  amphi_decoder *d = calloc(1, sizeof *d);
  if (!d) return AVERROR(ENOMEM);
  int r = AVERROR(ENOMEM);
  d->pkt = av_packet_alloc();
  d->ctx = avcodec_alloc_context3(codec);
  if (!d->pkt || !d->ctx) goto fail;
  d->ctx->thread_count = 1;
  if (!reorder) d->ctx->flags |= AV_CODEC_FLAG_LOW_DELAY;
  d->ctx->max_pixels = max_pixels;
  d->ctx->pkt_timebase = (AVRational){1, 1000000000};
  if ((r = avcodec_open2(d->ctx, codec, NULL)) < 0) goto fail;
  *out = d;
  return 0;
fail:
  amphi_decoder_close(d);
  return r;
}

int amphi_decode(amphi_decoder *d, uint8_t *data, int n, int64_t pts, AVFrame **out) {
  int64_t t0 = amphi_thread_ns();
  AVFrame *newest = NULL, *f = NULL;
  *out = NULL;
  // libavcodec copies a packet whose data has no reference count.
  d->pkt->data = data;
  d->pkt->size = n;
  d->pkt->pts = pts;
  int r = avcodec_send_packet(d->ctx, d->pkt);
  d->pkt->data = NULL;
  d->pkt->size = 0;
  while (r >= 0) {
    if (!f && !(f = av_frame_alloc())) {
      r = AVERROR(ENOMEM);
      break;
    }
    r = avcodec_receive_frame(d->ctx, f);
    if (r < 0) break;
    av_frame_free(&newest);
    newest = f;
    f = NULL;
  }
  av_frame_free(&f);
  if (r == AVERROR(EAGAIN) || r == AVERROR_EOF) r = 0;
  d->ns += amphi_thread_ns() - t0;
  *out = newest;
  return newest ? 0 : r;
}

void amphi_decoder_close(amphi_decoder *d) {
  if (!d) return;
  avcodec_free_context(&d->ctx);
  av_packet_free(&d->pkt);
  free(d);
}

// ---- the canvas ----

AVFrame *amphi_canvas(int w, int h) {
  AVFrame *f = av_frame_alloc();
  if (!f) return NULL;
  f->format = AV_PIX_FMT_YUV420P;
  f->width = w;
  f->height = h;
  f->colorspace = AVCOL_SPC_SMPTE170M;
  f->color_primaries = AVCOL_PRI_BT709;
  f->color_trc = AVCOL_TRC_BT709;
  f->color_range = AVCOL_RANGE_MPEG;
  if (av_frame_get_buffer(f, 64) < 0) {
    av_frame_free(&f);
    return NULL;
  }
  amphi_fill(f, (amphi_rect){0, 0, w, h}, 16, 128, 128);
  return f;
}

void amphi_fill(AVFrame *f, amphi_rect r, int y, int u, int v) {
  for (int j = 0; j < r.h; j++) memset(f->data[0] + (ptrdiff_t)(r.y + j) * f->linesize[0] + r.x, y, r.w);
  for (int j = 0; j < r.h / 2; j++) {
    memset(f->data[1] + (ptrdiff_t)(r.y / 2 + j) * f->linesize[1] + r.x / 2, u, r.w / 2);
    memset(f->data[2] + (ptrdiff_t)(r.y / 2 + j) * f->linesize[2] + r.x / 2, v, r.w / 2);
  }
}

static void planes(const AVFrame *f, int x, int y, uint8_t *p[4]) {
  p[0] = f->data[0] + (ptrdiff_t)y * f->linesize[0] + x;
  p[1] = f->data[1] + (ptrdiff_t)(y / 2) * f->linesize[1] + x / 2;
  p[2] = f->data[2] + (ptrdiff_t)(y / 2) * f->linesize[2] + x / 2;
  p[3] = NULL;
}

// libswscale writes whole vectors, beyond the width that it was given.
#define VECTOR 64

static int scratch(amphi_scaler *s, int w, int h) {
  if (s->scratch && s->scratch->width == w && s->scratch->height == h) return 0;
  av_frame_free(&s->scratch);
  s->scratch = amphi_canvas(w, h);
  return s->scratch ? 0 : AVERROR(ENOMEM);
}

// Each pixel is the mean of four. Compilers make vectors of it, and where they can of the processor's own width.
#if defined(__x86_64__) && defined(__GLIBC__)
__attribute__((target_clones("avx2", "default")))
#endif
static void halve_plane(uint8_t *restrict d, int dstride, const uint8_t *restrict s, int sstride, int w, int h) {
  for (int j = 0; j < h; j++, d += dstride, s += 2 * (ptrdiff_t)sstride) {
    const uint8_t *below = s + sstride;
    for (int i = 0; i < w; i++) d[i] = (s[2 * i] + s[2 * i + 1] + below[2 * i] + below[2 * i + 1] + 2) >> 2;
  }
}

int amphi_scale(amphi_scaler *s, const AVFrame *src, amphi_rect from, AVFrame *dst, amphi_rect to) {
  int64_t t0 = amphi_thread_ns();
  enum AVPixelFormat fmt = src->format;
  if (fmt == AV_PIX_FMT_YUV420P && src->color_range == AVCOL_RANGE_JPEG) fmt = AV_PIX_FMT_YUVJ420P;
  int planar420 = fmt == AV_PIX_FMT_YUV420P || fmt == AV_PIX_FMT_YUVJ420P;
  uint8_t *sp[4] = {src->data[0], src->data[1], src->data[2], src->data[3]}, *dp[4];
  if (planar420)
    planes(src, from.x, from.y, sp);
  else
    from = (amphi_rect){0, 0, src->width, src->height}; // an unusual format: stretched rather than cropped
  planes(dst, to.x, to.y, dp);
  int r = 0;
  if (fmt == AV_PIX_FMT_YUV420P && from.w == to.w && from.h == to.h) {
    av_image_copy(dp, dst->linesize, (const uint8_t **)sp, src->linesize, AV_PIX_FMT_YUV420P, to.w, to.h);
    s->ns += amphi_thread_ns() - t0;
    return 0;
  }
  // Half the size is what simulcast's next layer and the ladder's 360p are: by ourselves it takes a sixth of the time.
  if (fmt == AV_PIX_FMT_YUV420P && from.w == 2 * to.w && from.h == 2 * to.h) {
    for (int i = 0; i < 3; i++) halve_plane(dp[i], dst->linesize[i], sp[i], src->linesize[i], i ? to.w / 2 : to.w, i ? to.h / 2 : to.h);
    s->ns += amphi_thread_ns() - t0;
    return 0;
  }
  // Fast bilinear reads two source pixels only: fine to enlarge, but shrunk text suffers.
  int flags = from.w > to.w ? SWS_BILINEAR : SWS_FAST_BILINEAR;
  s->ctx = sws_getCachedContext(s->ctx, from.w, from.h, fmt, to.w, to.h, AV_PIX_FMT_YUV420P, flags, NULL, NULL, NULL);
  if (!s->ctx) r = AVERROR(EINVAL);
  int aside = to.w % VECTOR && to.w != dst->width;
  if (r >= 0 && aside) r = scratch(s, to.w, to.h);
  if (r >= 0) {
    uint8_t **out = aside ? s->scratch->data : dp;
    int *stride = aside ? s->scratch->linesize : dst->linesize;
    r = sws_scale(s->ctx, (const uint8_t *const *)sp, src->linesize, 0, from.h, out, stride);
  }
  if (r >= 0 && aside)
    av_image_copy(dp, dst->linesize, (const uint8_t **)s->scratch->data, s->scratch->linesize, AV_PIX_FMT_YUV420P, to.w, to.h);
  s->ns += amphi_thread_ns() - t0;
  return r < 0 ? r : 0;
}

void amphi_scaler_free(amphi_scaler *s) {
  sws_freeContext(s->ctx);
  s->ctx = NULL;
  av_frame_free(&s->scratch);
}

static inline uint8_t over(uint8_t under, uint8_t top, int a) {
  int t = under * (255 - a) + top * a + 128;
  return (t + (t >> 8)) >> 8;
}

static void blend_plane(uint8_t *d, int dstride, const uint8_t *s, const uint8_t *a, int sstride, int w, int h) {
  for (int j = 0; j < h; j++, d += dstride, s += sstride, a += sstride)
    for (int i = 0; i < w; i++) d[i] = over(d[i], s[i], a[i]);
}

void amphi_blend(AVFrame *dst, amphi_rect clip, int x, int y, int w, int h, const uint8_t *py, const uint8_t *pu,
                 const uint8_t *pv, const uint8_t *alpha, const uint8_t *chroma_alpha) {
  int x0 = FFMAX(x, clip.x), y0 = FFMAX(y, clip.y);
  int x1 = FFMIN(x + w, clip.x + clip.w), y1 = FFMIN(y + h, clip.y + clip.h);
  if (x0 >= x1 || y0 >= y1) return;
  uint8_t *dp[4];
  planes(dst, x0, y0, dp);
  ptrdiff_t o = (ptrdiff_t)(y0 - y) * w + (x0 - x), oc = (ptrdiff_t)((y0 - y) / 2) * (w / 2) + (x0 - x) / 2;
  blend_plane(dp[0], dst->linesize[0], py + o, alpha + o, w, x1 - x0, y1 - y0);
  blend_plane(dp[1], dst->linesize[1], pu + oc, chroma_alpha + oc, w / 2, (x1 - x0) / 2, (y1 - y0) / 2);
  blend_plane(dp[2], dst->linesize[2], pv + oc, chroma_alpha + oc, w / 2, (x1 - x0) / 2, (y1 - y0) / 2);
}

static void mix_plane(uint8_t *restrict d, int dstride, const uint8_t *restrict s, int sstride, int w, int h, int weight) {
  uint16_t a = weight, b = 256 - weight;
  for (int j = 0; j < h; j++, d += dstride, s += sstride)
    for (int i = 0; i < w; i++) d[i] = (uint16_t)(d[i] * a + s[i] * b + 128) >> 8;
}

void amphi_mix(AVFrame *dst, const AVFrame *src, amphi_rect r, int weight) {
  uint8_t *dp[4], *sp[4];
  planes(dst, r.x, r.y, dp);
  planes(src, r.x, r.y, sp);
  mix_plane(dp[0], dst->linesize[0], sp[0], src->linesize[0], r.w, r.h, weight);
  mix_plane(dp[1], dst->linesize[1], sp[1], src->linesize[1], r.w / 2, r.h / 2, weight);
  mix_plane(dp[2], dst->linesize[2], sp[2], src->linesize[2], r.w / 2, r.h / 2, weight);
}

// ---- encoding ----

static int encoder_alloc(amphi_encoder **out, const char *name) {
  const AVCodec *codec = avcodec_find_encoder_by_name(name);
  if (!codec) return AVERROR_ENCODER_NOT_FOUND;
  amphi_encoder *e = calloc(1, sizeof *e);
  if (!e) return AVERROR(ENOMEM);
  e->ctx = avcodec_alloc_context3(codec);
  e->pkt = av_packet_alloc();
  e->in = av_frame_alloc();
  if (!e->ctx || !e->pkt || !e->in) {
    amphi_encoder_close(e);
    return AVERROR(ENOMEM);
  }
  *out = e;
  return 0;
}

int amphi_video_open(amphi_encoder **out, const amphi_video_config *cfg) {
  amphi_encoder *e;
  int r = encoder_alloc(&e, cfg->codec);
  if (r < 0) return r;
  AVCodecContext *c = e->ctx;
  c->width = cfg->w;
  c->height = cfg->h;
  c->pix_fmt = AV_PIX_FMT_YUV420P;
  c->time_base = (AVRational){1, cfg->fps};
  c->framerate = (AVRational){cfg->fps, 1};
  c->bit_rate = cfg->bitrate;
  c->rc_max_rate = cfg->bitrate * 6 / 5;
  c->rc_buffer_size = cfg->bitrate;
  c->gop_size = 1 << 20; // keyframes are ours to place
  c->max_b_frames = 0;
  c->thread_count = cfg->threads;
  c->colorspace = AVCOL_SPC_SMPTE170M;
  c->color_primaries = AVCOL_PRI_BT709;
  c->color_trc = AVCOL_TRC_BT709;
  c->color_range = AVCOL_RANGE_MPEG;
  AVDictionary *o = NULL;
  if (cfg->preset) av_dict_set(&o, "preset", cfg->preset, 0);
  if (cfg->tune) av_dict_set(&o, "tune", cfg->tune, 0);
  if (cfg->params) {
    av_dict_set(&o, "x264-params", cfg->params, 0);
    av_dict_set(&o, "forced-idr", "1", 0);
  }
  r = avcodec_open2(c, c->codec, &o);
  av_dict_free(&o);
  if (r < 0) {
    amphi_encoder_close(e);
    return r;
  }
  *out = e;
  return 0;
}

static int encode(amphi_encoder *e) {
  av_packet_unref(e->pkt);
  int r = avcodec_send_frame(e->ctx, e->in);
  if (r >= 0) r = avcodec_receive_packet(e->ctx, e->pkt);
  av_frame_unref(e->in);
  return r;
}

int amphi_video_encode(amphi_encoder *e, const AVFrame *f, int64_t pts, int key) {
  int64_t t0 = amphi_thread_ns();
  int r = av_frame_ref(e->in, f);
  if (r >= 0) {
    e->in->pts = pts;
    e->in->pict_type = key ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
    r = encode(e);
  }
  e->ns += amphi_thread_ns() - t0;
  return r;
}

int amphi_aac_open(amphi_encoder **out, int64_t bitrate) {
  amphi_encoder *e;
  int r = encoder_alloc(&e, "aac");
  if (r < 0) return r;
  e->ctx->sample_fmt = AV_SAMPLE_FMT_FLTP;
  e->ctx->sample_rate = 48000;
  e->ctx->bit_rate = bitrate;
  e->ctx->time_base = (AVRational){1, 48000};
  e->ctx->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  av_channel_layout_default(&e->ctx->ch_layout, 2);
  if ((r = avcodec_open2(e->ctx, e->ctx->codec, NULL)) < 0) {
    amphi_encoder_close(e);
    return r;
  }
  *out = e;
  return 0;
}

int amphi_aac_encode(amphi_encoder *e, const float *left, const float *right, int64_t pts) {
  int64_t t0 = amphi_thread_ns();
  AVFrame *f = e->in;
  f->nb_samples = 1024;
  f->format = AV_SAMPLE_FMT_FLTP;
  f->sample_rate = 48000;
  av_channel_layout_default(&f->ch_layout, 2);
  int r = av_frame_get_buffer(f, 0);
  if (r >= 0) {
    memcpy(f->data[0], left, 1024 * sizeof(float));
    memcpy(f->data[1], right, 1024 * sizeof(float));
    f->pts = pts;
    r = encode(e);
  } else {
    av_frame_unref(f);
  }
  e->ns += amphi_thread_ns() - t0;
  return r;
}

void amphi_encoder_close(amphi_encoder *e) {
  if (!e) return;
  avcodec_free_context(&e->ctx);
  av_packet_free(&e->pkt);
  av_frame_free(&e->in);
  free(e);
}
