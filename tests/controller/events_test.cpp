// Asynchronous events, and Abort of the requests for them.
#include <set>

#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::LogPage;
using nvme::StatusCode;

class EventsTest : public ControllerTest {
 protected:
  void SetUp() override {
    start(one_subsystem({memory(1 << 20)}));
    h = &host();
    h->bring_up();
  }
  void enable() {
    ASSERT_TRUE(h->admin().send(nvme::set_async_events(nvme::kOaesNamespaceAttributes)).ok());
  }
  void add_namespace() { ASSERT_TRUE(target->add_namespace(kSubsystemNqn, memory(1 << 20))); }
  nvme::ChangedNamespaces changed(bool retain = false) {
    return nvme::ChangedNamespaces::decode(
        h->log(LogPage::changed_namespaces, nvme::kChangedNamespacesBytes, 0, retain).data);
  }

  TestHost* h = nullptr;
};

TEST_F(EventsTest, TellsOfANewNamespace) {
  enable();
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_for(1s);
  EXPECT_FALSE(request->done);
  add_namespace();
  const Answer told = h->admin().wait(*request);
  ASSERT_TRUE(told.ok());
  const auto event = nvme::AsyncEvent::decode(told.dw0());
  EXPECT_EQ(event.type, nvme::AsyncEventType::notice);
  EXPECT_EQ(event.info, nvme::kNoticeNamespaceChanged);
  EXPECT_EQ(event.log_page, 4);

  // Silent until the log page has been read without "retain".
  auto second = h->admin().start(nvme::async_event_request());
  add_namespace();
  EXPECT_EQ(changed(/*retain=*/true).nsids, (std::vector<std::uint32_t>{2, 3}));
  add_namespace();
  loop.run_for(1s);
  EXPECT_FALSE(second->done);
  EXPECT_EQ(changed().nsids, (std::vector<std::uint32_t>{2, 3, 4}));
  EXPECT_TRUE(changed().nsids.empty());
  add_namespace();
  EXPECT_TRUE(h->admin().wait(*second).ok());
  EXPECT_EQ(h->identify_controller().nn, 5u);
}

TEST_F(EventsTest, HoldsAnEventUntilItIsAskedFor) {
  enable();
  add_namespace();
  const Answer told = h->admin().send(nvme::async_event_request());
  ASSERT_TRUE(told.ok());
  EXPECT_EQ(nvme::AsyncEvent::decode(told.dw0()).info, nvme::kNoticeNamespaceChanged);
}

TEST_F(EventsTest, SaysNothingThatWasNotEnabled) {
  auto request = h->admin().start(nvme::async_event_request());
  add_namespace();
  loop.run_for(1s);
  EXPECT_FALSE(request->done);
  EXPECT_EQ(changed().nsids, (std::vector<std::uint32_t>{2}));
  // An event that this controller does not have cannot be enabled.
  EXPECT_EQ(h->admin().send(nvme::set_async_events(nvme::kOaesAnaChange)).code(),
            code_of(StatusCode::invalid_field));
}

TEST_F(EventsTest, LimitsTheRequests) {
  std::vector<std::shared_ptr<Pending>> requests;
  for (std::size_t i = 0; i < kAsyncEventsMax; ++i) {
    requests.push_back(h->admin().start(nvme::async_event_request()));
  }
  EXPECT_EQ(h->admin().send(nvme::async_event_request()).code(),
            code_of(StatusCode::aer_limit_exceeded));
  EXPECT_TRUE(h->admin().send(nvme::keep_alive()).ok());
}

TEST_F(EventsTest, AbortsRequests) {
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  const Answer wrong =
      h->admin().send(nvme::abort_command(0, static_cast<std::uint16_t>(request->sqe.cid + 1)));
  ASSERT_TRUE(wrong.ok());
  EXPECT_EQ(wrong.dw0(), nvme::kAbortNotAborted);
  EXPECT_EQ(h->admin().send(nvme::abort_command(1, request->sqe.cid)).dw0(),
            nvme::kAbortNotAborted);
  const Answer aborted = h->admin().send(nvme::abort_command(0, request->sqe.cid));
  ASSERT_TRUE(aborted.ok());
  EXPECT_EQ(aborted.dw0(), 0u);
  EXPECT_EQ(h->admin().wait(*request).code(), code_of(StatusCode::abort_requested));
}

TEST_F(EventsTest, EndsRequestsAtReset) {
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  ASSERT_TRUE(h->set_cc({}).ok());
  EXPECT_EQ(h->admin().wait(*request).code(), code_of(StatusCode::aborted_sq_deletion));
}

TEST_F(EventsTest, LosesRequestsWithTheConnection) {
  enable();
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  h->admin().end();
  // The controller may be on its way out when the event comes.
  add_namespace();
  loop.run_for(1s);
  EXPECT_TRUE(request->done);
  EXPECT_FALSE(request->answer().answered());
}

// ---- events on demand

class EventsOnDemandTest : public EventsTest {
 protected:
  std::shared_ptr<Pending> ask() {
    auto request = h->admin().start(nvme::async_event_request());
    loop.run_until_idle();
    return request;
  }
  nvme::AsyncEvent told(const Pending& request) {
    const Answer answer = h->admin().wait(request, 1s);
    EXPECT_TRUE(answer.ok());
    return nvme::AsyncEvent::decode(answer.dw0());
  }
  bool silent(const Pending& request) {
    loop.run_for(1s);
    return !request.done;
  }
  void enable(std::uint32_t events) {
    ASSERT_TRUE(h->admin().send(nvme::set_async_events(events)).ok());
  }
  void warn(std::uint8_t bits) {
    ASSERT_EQ(target->faults().health({}, {.critical_warning = bits,
                                           .temperature_kelvins = {},
                                           .spare_percent = {},
                                           .used_percent = {}}),
              1u);
  }
  void heat(std::uint16_t kelvins) {
    ASSERT_EQ(target->faults().health({}, {.critical_warning = {},
                                           .temperature_kelvins = kelvins,
                                           .spare_percent = {},
                                           .used_percent = {}}),
              1u);
  }
};

TEST_F(EventsOnDemandTest, WarnOfHealth) {
  enable(nvme::kWarningSpare | nvme::kWarningReliability);
  auto request = ask();
  warn(nvme::kWarningReadOnly);  // not enabled
  EXPECT_TRUE(silent(*request));
  warn(nvme::kWarningReadOnly | nvme::kWarningSpare);
  EXPECT_EQ(told(*request), (nvme::AsyncEvent{nvme::AsyncEventType::smart, nvme::kSmartSpare, 2}));

  // One kind: silent until the log has been read, whatever the warning.
  request = ask();
  warn(nvme::kWarningReadOnly | nvme::kWarningSpare | nvme::kWarningReliability);
  EXPECT_EQ(
      nvme::SmartLog::decode(h->log(LogPage::smart, 512, 0, /*retain=*/true).data).critical_warning,
      nvme::kWarningReadOnly | nvme::kWarningSpare | nvme::kWarningReliability);
  EXPECT_TRUE(silent(*request));
  EXPECT_NE(h->smart().critical_warning, 0);
  warn(nvme::kWarningSpare);
  EXPECT_TRUE(silent(*request));  // nothing new
  warn(0);
  EXPECT_EQ(h->smart().critical_warning, 0);
  warn(nvme::kWarningReliability);
  EXPECT_EQ(told(*request),
            (nvme::AsyncEvent{nvme::AsyncEventType::smart, nvme::kSmartReliability, 2}));
}

TEST_F(EventsOnDemandTest, WarnOfTemperatureByTheHostsThresholds) {
  EXPECT_EQ(h->smart().composite_temperature, 0);  // there is none to report
  enable(nvme::kWarningTemperature);
  auto request = ask();
  heat(320);
  EXPECT_EQ(h->smart().composite_temperature, 320);
  EXPECT_TRUE(silent(*request));
  ASSERT_TRUE(h->admin().send(nvme::set_features(nvme::Feature::temperature_threshold, 330)).ok());
  EXPECT_TRUE(silent(*request));
  heat(330);
  EXPECT_EQ(told(*request),
            (nvme::AsyncEvent{nvme::AsyncEventType::smart, nvme::kSmartTemperature, 2}));
  EXPECT_EQ(h->smart().critical_warning, nvme::kWarningTemperature);
  heat(329);
  EXPECT_EQ(h->smart().critical_warning, 0);
  request = ask();
  // THSEL 1: the threshold below.
  ASSERT_TRUE(h->admin()
                  .send(nvme::set_features(nvme::Feature::temperature_threshold, 1u << 20 | 329))
                  .ok());
  EXPECT_EQ(told(*request).info, nvme::kSmartTemperature);
}

TEST_F(EventsOnDemandTest, ReportErrorsOfNoCommand) {
  auto request = ask();
  ASSERT_EQ(target->faults().error_event({}, StatusCode::internal_error, /*persistent=*/true), 1u);
  EXPECT_EQ(told(*request),
            (nvme::AsyncEvent{nvme::AsyncEventType::error, nvme::kErrorPersistentInternal, 1}));
  const auto entry = nvme::ErrorEntry::decode(
      h->log(LogPage::error_information, nvme::kErrorEntryBytes, 0, /*retain=*/true).data);
  EXPECT_EQ(entry.error_count, 1u);
  EXPECT_EQ(entry.sqid, 0xffff);
  EXPECT_EQ(entry.cmdid, 0xffff);
  EXPECT_EQ(entry.status(), nvme::Status(StatusCode::internal_error));
  EXPECT_EQ(h->smart().num_err_log_entries.low, 1u);
  request = ask();
  ASSERT_EQ(target->faults().error_event({}, StatusCode::internal_error, false), 1u);
  EXPECT_TRUE(silent(*request));
  h->log(LogPage::error_information, nvme::kErrorEntryBytes);
  ASSERT_EQ(target->faults().error_event({}, StatusCode::internal_error, false), 1u);
  EXPECT_EQ(told(*request).info, nvme::kErrorTransientInternal);
}

TEST_F(EventsOnDemandTest, TellOfFirmwareActivation) {
  EXPECT_NE(h->identify_controller().oaes & nvme::kOaesFirmwareActivation, 0u);
  auto request = ask();
  ASSERT_EQ(target->faults().firmware_event({}), 1u);
  EXPECT_TRUE(silent(*request));  // not enabled
  enable(nvme::kOaesFirmwareActivation);
  ASSERT_EQ(target->faults().firmware_event({}), 1u);
  EXPECT_EQ(told(*request),
            (nvme::AsyncEvent{nvme::AsyncEventType::notice, nvme::kNoticeFirmwareActivation, 3}));
  request = ask();
  ASSERT_EQ(target->faults().firmware_event({}), 1u);
  EXPECT_TRUE(silent(*request));
  h->log(LogPage::firmware_slot, nvme::kFirmwareSlotBytes);
  ASSERT_EQ(target->faults().firmware_event({.subnqn = {}, .nsid = 0, .cntlid = 99, .qid = {}}),
            0u);
  EXPECT_TRUE(silent(*request));
  ASSERT_EQ(target->faults().firmware_event({}), 1u);
  EXPECT_EQ(told(*request).log_page, 3);
}

TEST_F(EventsOnDemandTest, OfDifferentKindsDoNotWaitForEachOther) {
  enable(nvme::kOaesFirmwareActivation | nvme::kWarningSpare | nvme::kOaesNamespaceAttributes);
  target->faults().firmware_event({});
  add_namespace();
  warn(nvme::kWarningSpare);
  std::set<std::uint8_t> pages;
  for (int i = 0; i < 3; ++i) pages.insert(told(*ask()).log_page);
  EXPECT_EQ(pages, (std::set<std::uint8_t>{2, 3, 4}));
  EXPECT_TRUE(silent(*ask()));
}

}  // namespace
}  // namespace nvmf::controller
