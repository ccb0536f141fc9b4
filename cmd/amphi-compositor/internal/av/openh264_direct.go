//go:build cgo && openh264

package av

/*
#cgo pkg-config: openh264
#include "av.h"
#include <stdlib.h>
#include <string.h>
#include <wels/codec_api.h>

typedef struct {
  ISVCEncoder *enc;
  uint8_t *out;
  int cap, n, idr;
  int64_t ns;
} amphi_openh264;

static void amphi_openh264_close(amphi_openh264 *o) {
  if (!o) return;
  if (o->enc) {
    (*o->enc)->Uninitialize(o->enc);
    WelsDestroySVCEncoder(o->enc);
  }
  free(o->out);
  free(o);
}

static amphi_openh264 *amphi_openh264_open(int w, int h, int fps, int bitrate) {
  amphi_openh264 *o = calloc(1, sizeof *o);
  if (!o || WelsCreateSVCEncoder(&o->enc)) {
    amphi_openh264_close(o);
    return NULL;
  }
  int level = WELS_LOG_QUIET;
  (*o->enc)->SetOption(o->enc, ENCODER_OPTION_TRACE_LEVEL, &level);
  SEncParamExt p;
  (*o->enc)->GetDefaultParams(o->enc, &p);
  p.iUsageType = CAMERA_VIDEO_REAL_TIME;
  p.iPicWidth = w;
  p.iPicHeight = h;
  p.fMaxFrameRate = fps;
  p.iTargetBitrate = bitrate;
  p.iMaxBitrate = bitrate * 6 / 5;
  p.iRCMode = RC_BITRATE_MODE;
  p.iComplexityMode = LOW_COMPLEXITY;
  p.uiIntraPeriod = 0; // keyframes are ours to place
  p.eSpsPpsIdStrategy = CONSTANT_ID;
  p.bEnableFrameSkip = false; // a tick is a picture
  p.bEnableSceneChangeDetect = false;
  p.iMultipleThreadIdc = 1;
  p.iSpatialLayerNum = 1;
  SSpatialLayerConfig *l = &p.sSpatialLayers[0];
  l->iVideoWidth = w;
  l->iVideoHeight = h;
  l->fFrameRate = fps;
  l->iSpatialBitrate = p.iTargetBitrate;
  l->iMaxSpatialBitrate = p.iMaxBitrate;
  l->sSliceArgument.uiSliceMode = SM_SINGLE_SLICE;
  l->bVideoSignalTypePresent = true;
  l->uiVideoFormat = VF_UNDEF;
  l->bFullRange = false;
  l->bColorDescriptionPresent = true;
  l->uiColorPrimaries = CP_BT709;
  l->uiTransferCharacteristics = TRC_BT709;
  l->uiColorMatrix = CM_SMPTE170M;
  if ((*o->enc)->InitializeExt(o->enc, &p)) {
    amphi_openh264_close(o);
    return NULL;
  }
  return o;
}

static int amphi_openh264_encode(amphi_openh264 *o, const AVFrame *f, int64_t ms, int key) {
  int64_t t0 = amphi_thread_ns();
  SFrameBSInfo info;
  SSourcePicture pic;
  memset(&info, 0, sizeof info);
  memset(&pic, 0, sizeof pic);
  pic.iColorFormat = videoFormatI420;
  pic.iPicWidth = f->width;
  pic.iPicHeight = f->height;
  pic.uiTimeStamp = ms;
  for (int i = 0; i < 3; i++) {
    pic.iStride[i] = f->linesize[i];
    pic.pData[i] = f->data[i];
  }
  o->n = o->idr = 0;
  if (key) (*o->enc)->ForceIntraFrame(o->enc, true);
  int r = (*o->enc)->EncodeFrame(o->enc, &pic, &info);
  for (int i = 0; r == 0 && i < info.iLayerNum; i++) {
    SLayerBSInfo *l = &info.sLayerInfo[i];
    int n = 0;
    for (int k = 0; k < l->iNalCount; k++) n += l->pNalLengthInByte[k];
    if (o->n + n > o->cap) {
      int cap = (o->n + n) * 2;
      uint8_t *out = realloc(o->out, cap);
      if (!out) {
        r = -1;
        break;
      }
      o->out = out;
      o->cap = cap;
    }
    memcpy(o->out + o->n, l->pBsBuf, n);
    o->n += n;
  }
  o->idr = info.eFrameType == videoFrameTypeIDR;
  o->ns += amphi_thread_ns() - t0;
  return r ? r : o->n ? 0 : -1;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// openH264 is Cisco's encoder (BSD): Constrained Baseline, cheaper than x264 and a
// little less sharp.
type openH264 struct {
	o   *C.amphi_openh264
	fps int64
}

func newOpenH264(cfg VideoConfig) (VideoEncoder, error) {
	o := C.amphi_openh264_open(C.int(cfg.W), C.int(cfg.H), C.int(cfg.FPS), C.int(cfg.Bitrate))
	if o == nil {
		return nil, errors.New("opening encoder openh264: refused")
	}
	return &openH264{o, int64(cfg.FPS)}, nil
}

func (e *openH264) Encode(c *Canvas, tick int64, key bool) ([]byte, bool, error) {
	k := C.int(0)
	if key {
		k = 1
	}
	if r := C.amphi_openh264_encode(e.o, c.f, C.int64_t(tick*1000/e.fps), k); r != 0 {
		return nil, false, fmt.Errorf("encoding: openh264 answers %d", r)
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(e.o.out)), int(e.o.n)), e.o.idr != 0, nil
}

func (e *openH264) CPU() time.Duration { return time.Duration(e.o.ns) }

func (e *openH264) Close() {
	C.amphi_openh264_close(e.o)
	e.o = nil
}
